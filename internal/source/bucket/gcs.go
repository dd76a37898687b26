package bucket

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"

	"github.com/plumb-gitops/plumb/internal/egress"
)

// gcs is the client of Google Cloud Storage. It speaks the JSON API itself: two kinds
// of requests need no library that links gRPC.
type gcs struct {
	base    string // URL of the bucket's objects
	wire    *wire
	session *session
	limits  limits
}

func newGCS(request Request, u *url.URL, w *wire, s *session, l limits) client {
	base := u.Scheme + "://" + u.Host + "/storage/v1/b/" + url.PathEscape(request.Bucket) + "/o"
	return &gcs{base: base, wire: w, session: s, limits: l}
}

// pageObjects is how many objects a page is asked to have.
const pageObjects = 1000

// gcsPage is a page of a listing.
type gcsPage struct {
	Kind  string `json:"kind"`
	Items []struct {
		Name       string `json:"name"`
		Etag       string `json:"etag"`
		Size       string `json:"size"`
		Generation string `json:"generation"`
		CRC32C     string `json:"crc32c"`
	} `json:"items"`
	NextPageToken string `json:"nextPageToken"`
}

func (c *gcs) list(ctx context.Context, prefix string, visit func(object) error) error {
	ctx, e := exchanging(ctx, c.limits.pages, mostPage)
	for token := ""; ; {
		query := url.Values{
			"maxResults": {strconv.Itoa(pageObjects)}, "prettyPrint": {"false"}, "projection": {"noAcl"},
			"fields": {"kind,nextPageToken,items(name,etag,size,generation,crc32c)"},
		}
		if prefix != "" {
			query.Set("prefix", prefix)
		}
		if token != "" {
			query.Set("pageToken", token)
		}
		response, err := c.get(ctx, e, c.base+"?"+query.Encode())
		if err != nil {
			return err
		}
		var page []object
		if page, token, err = readGCSPage(e, response.Body); err != nil {
			return err
		}
		for _, o := range page {
			if err := visit(o); err != nil {
				return err
			}
		}
		if token == "" {
			return nil
		}
	}
}

// readGCSPage gives the objects of a page, and the token of the next one.
func readGCSPage(e *exchange, body io.ReadCloser) ([]object, string, error) {
	defer body.Close()
	var page gcsPage
	// Whatever else is JSON would be taken for a listing of nothing.
	if err := json.NewDecoder(body).Decode(&page); err != nil || page.Kind != "storage#objects" {
		return nil, "", e.cause(&fault{code: codeServer, text: "the server's answer is no listing of objects; check the endpoint"})
	}
	objects := make([]object, 0, len(page.Items))
	for _, item := range page.Items {
		size, err := strconv.ParseInt(item.Size, 10, 64)
		if err != nil || size < 0 {
			return nil, "", &fault{code: codeServer, text: "the server lists an object without a size"}
		}
		o := object{key: item.Name, etag: item.Etag, size: size, generation: item.Generation}
		if sum, err := base64.StdEncoding.DecodeString(item.CRC32C); err == nil && len(sum) == 4 {
			crc := binary.BigEndian.Uint32(sum)
			o.crc = &crc
		}
		objects = append(objects, o)
	}
	return objects, page.NextPageToken, nil
}

func (c *gcs) open(ctx context.Context, o object) (content, error) {
	ctx, e := exchanging(ctx, 1, c.limits.object)
	query := url.Values{"alt": {"media"}, "ifGenerationMatch": {o.generation}}
	response, err := c.get(ctx, e, c.base+"/"+url.PathEscape(o.key)+"?"+query.Encode())
	if codeOf(err) == codeNoBucket {
		return content{}, &fault{code: codeNoObject, text: "the object is gone"}
	}
	if err != nil {
		return content{}, err
	}
	stored, sent := response.Header.Get("X-Goog-Stored-Content-Encoding"), response.Header.Get("Content-Encoding")
	return content{ReadCloser: response.Body, converted: stored == "gzip" && sent != "gzip"}, nil
}

// get sends a request and expects it to be answered with content.
func (c *gcs) get(ctx context.Context, e *exchange, target string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, &fault{code: codeURL, text: "the endpoint is no URL that can be asked"}
	}
	request.Header.Set("User-Agent", "plumb/source")
	if credential, _ := c.session.get(); credential.BearerToken != "" {
		request.Header.Set("Authorization", "Bearer "+credential.BearerToken)
	}
	response, err := c.wire.RoundTrip(request)
	if err != nil {
		return nil, e.cause(err)
	}
	if response.StatusCode == http.StatusOK {
		return response, nil
	}
	defer response.Body.Close()
	var said struct {
		Error struct {
			Errors []struct {
				Reason string `json:"reason"`
			} `json:"errors"`
		} `json:"error"`
	}
	word := ""
	if json.NewDecoder(response.Body).Decode(&said) == nil && len(said.Error.Errors) > 0 {
		word = said.Error.Errors[0].Reason
	}
	if response.StatusCode == http.StatusNotFound {
		return nil, &fault{code: codeNoBucket, text: "the bucket does not exist"}
	}
	return nil, answer(response.StatusCode, word)
}

// googleScope is the right to read.
const googleScope = "https://www.googleapis.com/auth/devstorage.read_only"

// googleLogin logs in with a key in JSON. Only kinds are taken that name no file, no
// program and no other identity.
func googleLogin(key []byte, w *wire, policy egress.Policy) (func(context.Context) (Credential, error), error) {
	var kind struct {
		Type  string `json:"type"`
		Token string `json:"token_uri"`
		Key   string `json:"private_key"`
	}
	if err := json.Unmarshal(key, &kind); err != nil {
		return nil, &fault{code: codeCredential, text: "\"serviceaccount\" in the secret is no JSON"}
	}
	if err := egress.CheckKey([]byte(kind.Key)); err != nil {
		return nil, err
	}
	as := google.CredentialsType(kind.Type)
	switch as {
	case google.ServiceAccount, google.AuthorizedUser:
	default:
		return nil, &fault{code: codeCredential, text: "\"serviceaccount\" in the secret is of type " + egress.Quote(kind.Type) +
			"; use service_account or authorized_user, or a serviceAccountName for workload identity"}
	}
	if policy.NoPlainCredentials && strings.HasPrefix(strings.ToLower(kind.Token), "http:") {
		return nil, &egress.Refused{Text: "a credential would be sent over http, which --no-plain-credentials refuses; use https"}
	}
	if _, err := google.CredentialsFromJSONWithType(context.Background(), key, as, googleScope); err != nil {
		return nil, &fault{code: codeCredential, text: "\"serviceaccount\" in the secret is no key of Google"}
	}
	return func(ctx context.Context) (Credential, error) {
		client, e := w.logins(ctx)
		credentials, err := google.CredentialsFromJSONWithType(context.WithValue(ctx, oauth2.HTTPClient, client), key, as, googleScope)
		if err != nil {
			return Credential{}, &fault{code: codeCredential, text: "\"serviceaccount\" in the secret is no key of Google"}
		}
		token, err := credentials.TokenSource.Token()
		if err != nil {
			return Credential{}, googleFailure(ctx, e, err)
		}
		if token.AccessToken == "" {
			return Credential{}, &fault{code: codeLogin, text: "log in at Google: the answer holds no token"}
		}
		return Credential{BearerToken: token.AccessToken, Expires: token.Expiry}, nil
	}, nil
}

func googleFailure(ctx context.Context, e *exchange, err error) error {
	word := ""
	var said *oauth2.RetrieveError
	if errors.As(err, &said) {
		if word = said.ErrorCode; word == "" {
			var body struct {
				Error string `json:"error"`
			}
			if json.Unmarshal(said.Body, &body) == nil {
				word = body.Error
			}
		}
	}
	e.mu.Lock()
	sent := e.status != 0 || e.err != nil
	e.mu.Unlock()
	if !sent && ctx.Err() == nil {
		return &fault{code: codeCredential, text: "\"serviceaccount\" in the secret has a private key or a token_uri that cannot be used"}
	}
	return e.loginFailure(ctx, "Google", err, strings.ReplaceAll(word, "_", ""))
}
