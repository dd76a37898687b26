package bucket

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"

	"github.com/plumb-gitops/plumb/internal/egress"
)

// azure is the client of Azure Blob Storage.
type azure struct {
	client    *azblob.Client
	container string
	limits    limits
}

// fixed tells whether there is a credential that is not logged in with.
func (a AzureAuth) fixed() bool {
	return a.ClientID == "" && (a.AccountKey != "" || a.SASKey != "")
}

// principal tells whether there is a service principal.
func (a AzureAuth) principal() bool {
	return a.TenantID != "" && a.ClientID != "" && (a.ClientSecret != "" || len(a.ClientCertificate) > 0)
}

func newAzure(request Request, u *url.URL, w *wire, s *session, l limits) (client, error) {
	options := &azblob.ClientOptions{ClientOptions: policy.ClientOptions{
		Transport: w, Telemetry: policy.TelemetryOptions{ApplicationID: "plumb"},
		Retry: policy.RetryOptions{MaxRetries: -1}, // the wire has its own attempts
	}}
	auth, base := request.Auth.Azure, *u
	var made *azblob.Client
	var err error
	switch {
	case auth.fixed() && auth.AccountKey != "":
		var name string
		if name, err = account(u); err != nil {
			return nil, err
		}
		key, bad := azblob.NewSharedKeyCredential(name, auth.AccountKey)
		if bad != nil {
			return nil, &fault{code: codeCredential, text: "\"accountKey\" in the secret is no key in base64"}
		}
		made, err = azblob.NewClientWithSharedKeyCredential(base.String(), key, options)
	case auth.fixed():
		if base.RawQuery, err = signature(auth.SASKey, u.Query()); err != nil {
			return nil, err
		}
		made, err = azblob.NewClientWithNoCredential(base.String(), options)
	default:
		options.PerRetryPolicies = []policy.Policy{&bearer{s}}
		made, err = azblob.NewClientWithNoCredential(base.String(), options)
	}
	if err != nil {
		return nil, &fault{code: codeURL, text: "the endpoint is no URL of a storage account"}
	}
	return &azure{client: made, container: request.Bucket, limits: l}, nil
}

// signature is the query of a shared access signature, with what the endpoint has of
// its own.
func signature(key string, own url.Values) (string, error) {
	values, err := url.ParseQuery(strings.TrimPrefix(strings.TrimSpace(key), "?"))
	if err != nil {
		return "", &fault{code: codeCredential, text: "\"sasKey\" in the secret is no shared access signature"}
	}
	for name, value := range own {
		if !values.Has(name) {
			values[name] = value
		}
	}
	return values.Encode(), nil
}

// bearer sends the session's token.
type bearer struct{ session *session }

// Do sends a request.
func (b *bearer) Do(request *policy.Request) (*http.Response, error) {
	if credential, _ := b.session.get(); credential.BearerToken != "" {
		request.Raw().Header.Set("Authorization", "Bearer "+credential.BearerToken)
	}
	return request.Next()
}

func (c *azure) list(ctx context.Context, prefix string, visit func(object) error) error {
	ctx, e := exchanging(ctx, c.limits.pages, mostPage)
	e.roots = []string{"EnumerationResults"}
	most := int32(pageObjects)
	options := &azblob.ListBlobsFlatOptions{MaxResults: &most}
	if prefix != "" {
		options.Prefix = &prefix
	}
	for pager := c.client.NewListBlobsFlatPager(c.container, options); pager.More(); {
		page, err := pager.NextPage(ctx)
		if err != nil {
			return c.explain(e, err)
		}
		if page.Segment == nil {
			continue
		}
		for _, item := range page.Segment.BlobItems {
			if item == nil || item.Name == nil || item.Properties == nil || item.Properties.ETag == nil || item.Properties.ContentLength == nil {
				return &fault{code: codeServer, text: "the server lists an object without a name, size or entity tag"}
			}
			if kind := item.Properties.ResourceType; kind != nil && *kind == "directory" {
				continue
			}
			if err := visit(object{key: *item.Name, etag: quoted(string(*item.Properties.ETag)), size: *item.Properties.ContentLength}); err != nil {
				return err
			}
		}
	}
	return nil
}

// quoted is an entity tag as it stands in a header. It is without quotes in a listing,
// and Flux's revision is made of the former.
func quoted(etag string) string {
	if strings.HasPrefix(etag, `"`) || strings.HasPrefix(etag, "W/") {
		return etag
	}
	return `"` + etag + `"`
}

func (c *azure) open(ctx context.Context, o object) (content, error) {
	ctx, e := exchanging(ctx, 1, c.limits.object)
	etag := azcore.ETag(o.etag)
	response, err := c.client.DownloadStream(ctx, c.container, o.key, &azblob.DownloadStreamOptions{
		AccessConditions: &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfMatch: &etag}},
	})
	if err != nil {
		return content{}, c.explain(e, err)
	}
	if response.ETag == nil || string(*response.ETag) != o.etag {
		_ = response.Body.Close()
		return content{}, &fault{code: codeChanged, text: "the object has changed"}
	}
	return content{ReadCloser: response.Body}, nil
}

func (*azure) explain(e *exchange, err error) error {
	var said *azcore.ResponseError
	if errors.As(err, &said) && said.StatusCode >= http.StatusBadRequest {
		return answer(said.StatusCode, said.ErrorCode)
	}
	return e.cause(err)
}

// azureScope is the right to use storage.
const azureScope = "https://storage.azure.com/.default"

// azureLogin logs in as a service principal. A library's credential keeps its tokens,
// so there is a new one for each login.
func (s *Store) azureLogin(ctx context.Context, auth AzureAuth, w *wire) (func(context.Context) (Credential, error), error) {
	var certificate clientCertificate
	if auth.ClientSecret == "" {
		var err error
		if certificate, err = s.readCertificate(ctx, auth); err != nil {
			return nil, err
		}
	}
	if _, err := auth.credential(http.DefaultClient, certificate); err != nil {
		return nil, err
	}
	return func(ctx context.Context) (Credential, error) {
		client, e := w.logins(ctx)
		credential, err := auth.credential(client, certificate)
		if err != nil {
			return Credential{}, err
		}
		token, err := credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{azureScope}})
		if err != nil {
			return Credential{}, e.loginFailure(ctx, "Azure", err, azureWord(err))
		}
		return Credential{BearerToken: token.Token, Expires: token.ExpiresOn}, nil
	}, nil
}

// azureWord is the server's word for a failed login.
func azureWord(err error) string {
	var failed *azidentity.AuthenticationFailedError
	if !errors.As(err, &failed) || failed.RawResponse == nil || failed.RawResponse.Body == nil {
		return ""
	}
	var said struct {
		Error string `json:"error"`
	}
	body, err := io.ReadAll(io.LimitReader(failed.RawResponse.Body, mostLogin))
	if err != nil || json.Unmarshal(body, &said) != nil {
		return ""
	}
	return strings.ReplaceAll(said.Error, "_", "")
}

func (a AzureAuth) credential(client *http.Client, certificate clientCertificate) (azcore.TokenCredential, error) {
	options := policy.ClientOptions{Transport: client, Retry: policy.RetryOptions{MaxRetries: -1}}
	if a.AuthorityHost != "" {
		u, err := url.Parse(a.AuthorityHost)
		if err != nil || u.Scheme != "https" || u.Host == "" {
			return nil, &fault{code: codeCredential, text: "\"authorityHost\" in the secret is no URL with https"}
		}
		options.Cloud = cloud.Configuration{ActiveDirectoryAuthorityHost: a.AuthorityHost}
	}
	// An authority of one's own is not asked about at the public one.
	alone := a.AuthorityHost != ""
	if a.ClientSecret != "" {
		made, err := azidentity.NewClientSecretCredential(a.TenantID, a.ClientID, a.ClientSecret,
			&azidentity.ClientSecretCredentialOptions{ClientOptions: options, DisableInstanceDiscovery: alone})
		return unusable(made, err, "\"tenantId\", \"clientId\" or \"clientSecret\" in the secret cannot be used")
	}
	made, err := azidentity.NewClientCertificateCredential(a.TenantID, a.ClientID, certificate.chain, certificate.key,
		&azidentity.ClientCertificateCredentialOptions{
			ClientOptions: options, DisableInstanceDiscovery: alone, SendCertificateChain: a.ClientCertificateSendChain,
		})
	return unusable(made, err, "\"tenantId\", \"clientId\" or \"clientCertificate\" in the secret cannot be used")
}

func unusable[C azcore.TokenCredential](made C, err error, text string) (azcore.TokenCredential, error) {
	if err != nil {
		return nil, &fault{code: codeCredential, text: egress.Printable(text)}
	}
	return made, nil
}
