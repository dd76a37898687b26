package bucket

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync/atomic"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"github.com/minio/minio-go/v7/pkg/s3utils"

	"github.com/plumb-gitops/plumb/internal/egress"
)

// s3 is the client of all that speaks S3.
type s3 struct {
	client *minio.Client
	bucket string
	limits limits
}

func newS3(request Request, u *url.URL, w *wire, s *session, l limits) (client, error) {
	if s3utils.CheckValidBucketName(request.Bucket) != nil {
		return nil, badName()
	}
	made, err := minio.New(u.Host, &minio.Options{
		Creds:  credentials.New(&s3Credential{session: s}),
		Secure: u.Scheme == "https", Region: request.Region, Transport: w,
		MaxRetries: 1, // the wire has its own attempts
	})
	if err != nil {
		return nil, &fault{code: codeURL, text: "the endpoint is none that S3 can be reached at"}
	}
	made.SetAppInfo("plumb", "source")
	return &s3{client: made, bucket: request.Bucket, limits: l}, nil
}

// s3Credential hands the session's credential to the client. Whoever sends a request
// has ensured it before, so that this never waits.
type s3Credential struct {
	session *session
	used    atomic.Int64 // one more than the version that the client has
}

// Retrieve is the session's credential.
func (c *s3Credential) Retrieve() (credentials.Value, error) {
	credential, version := c.session.get()
	c.used.Store(int64(version) + 1)
	if credential.AccessKey == "" {
		return credentials.Value{SignerType: credentials.SignatureAnonymous}, nil
	}
	return credentials.Value{
		AccessKeyID: credential.AccessKey, SecretAccessKey: credential.SecretKey, SessionToken: credential.SessionToken,
		SignerType: credentials.SignatureV4,
	}, nil
}

// RetrieveWithCredContext is the session's credential.
func (c *s3Credential) RetrieveWithCredContext(*credentials.CredContext) (credentials.Value, error) {
	return c.Retrieve()
}

// IsExpired tells whether the session has another credential by now.
func (c *s3Credential) IsExpired() bool {
	_, version := c.session.get()
	return c.used.Load() != int64(version)+1
}

// besides are requests of an operation that are none for a page: the bucket's region is
// asked for once, and may be corrected.
const besides = 4

func (c *s3) list(ctx context.Context, prefix string, visit func(object) error) error {
	ctx, e := exchanging(ctx, c.limits.pages+besides, mostPage)
	e.roots = []string{"ListBucketResult", "LocationConstraint"}
	for o := range c.client.ListObjectsIter(ctx, c.bucket, minio.ListObjectsOptions{
		Recursive: true, Prefix: prefix, UseV1: s3utils.IsGoogleEndpoint(*c.client.EndpointURL()),
	}) {
		if o.Err != nil {
			return c.explain(e, o.Err)
		}
		if err := visit(object{key: o.Key, etag: o.ETag, size: o.Size}); err != nil {
			return err
		}
	}
	// The iterator ends in silence where its context does.
	return ctx.Err()
}

func (c *s3) open(ctx context.Context, o object) (content, error) {
	ctx, e := exchanging(ctx, besides, c.limits.object)
	var options minio.GetObjectOptions
	if o.etag != "" {
		if err := options.SetMatchETag(o.etag); err != nil {
			return content{}, refused("object %s has an entity tag that cannot be asked for", egress.Quote(o.key))
		}
	}
	body, info, _, err := (&minio.Core{Client: c.client}).GetObject(ctx, c.bucket, o.key, options)
	if err != nil {
		return content{}, c.explain(e, err)
	}
	if info.ETag != o.etag {
		_ = body.Close()
		return content{}, &fault{code: codeChanged, text: "the object has changed"}
	}
	return content{ReadCloser: body}, nil
}

func (*s3) explain(e *exchange, err error) error {
	var said minio.ErrorResponse
	if !errors.As(err, &said) || said.StatusCode == 0 {
		return e.cause(err)
	}
	switch said.Code {
	case "PermanentRedirect", "AuthorizationHeaderMalformed", "InvalidRegion", "IllegalLocationConstraintException":
		text := "the bucket is in another region"
		if region := egress.Printable(said.Region); region != "" {
			text = fmt.Sprintf("the bucket is in region %q", region)
		}
		return &fault{code: codeURL, text: text + "; set region"}
	}
	if said.StatusCode < 400 {
		return e.cause(err)
	}
	return answer(said.StatusCode, said.Code)
}

// ldapLogin gets keys for a name and a password of LDAP.
func ldapLogin(sts STS, w *wire) func(context.Context) (Credential, error) {
	return func(ctx context.Context) (Credential, error) {
		client, e := w.logins(ctx)
		provider := credentials.LDAPIdentity{Client: client, STSEndpoint: sts.Endpoint, LDAPUsername: sts.Username, LDAPPassword: sts.Password}
		value, err := provider.RetrieveWithCredContext(&credentials.CredContext{Context: ctx})
		if err != nil {
			word := ""
			var said credentials.ErrorResponse
			if errors.As(err, &said) {
				word = said.STSError.Code
			}
			return Credential{}, e.loginFailure(ctx, "the security token service", err, word)
		}
		if value.AccessKeyID == "" || value.SecretAccessKey == "" {
			return Credential{}, &fault{code: codeLogin, text: "log in at the security token service: the answer holds no keys"}
		}
		return Credential{
			AccessKey: value.AccessKeyID, SecretKey: value.SecretAccessKey, SessionToken: value.SessionToken,
			Expires: value.Expiration,
		}, nil
	}
}
