package server

import (
	"context"
	"io/fs"
	"strconv"

	"github.com/plumb-gitops/plumb/internal/auth"
	"github.com/plumb-gitops/plumb/internal/frontend/flux"
	"github.com/plumb-gitops/plumb/internal/source"
	"github.com/plumb-gitops/plumb/internal/source/bucket"
)

// bucketSources lets the front end follow buckets.
type bucketSources struct{ *server }

// Fetch fetches a request.
func (b bucketSources) Fetch(ctx context.Context, request flux.BucketRequest, known string) (source.Result, error) {
	return counted(b.buckets.Fetch(ctx, b.bucketRequest(request), known))
}

// Last gives what an earlier Fetch brought.
func (b bucketSources) Last(ctx context.Context, request flux.BucketRequest) (source.Result, error) {
	return b.buckets.Last(ctx, b.bucketRequest(request))
}

// Retain removes what none of the requests needs.
func (b bucketSources) Retain(requests []flux.BucketRequest) error {
	wanted := make([]bucket.Request, 0, len(requests))
	for _, request := range requests {
		wanted = append(wanted, b.bucketRequest(request))
	}
	return b.buckets.Retain(wanted)
}

// counted says of a result how many files were fetched, for the event: as in Flux without
// the ignore file, which is none of them.
func counted(result source.Result, err error) (source.Result, error) {
	if err != nil || result.Unchanged {
		return result, err
	}
	files := 0
	err = fs.WalkDir(result.Files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && name != source.IgnoreFile {
			files++
		}
		return err
	})
	if err != nil {
		result.Release()
		return source.Result{}, err
	}
	result.Metadata = map[string]string{flux.BucketFiles: strconv.Itoa(files)}
	return result, nil
}

func (s *server) bucketRequest(r flux.BucketRequest) bucket.Request {
	secret := func(key string) string { return string(r.Secret[key]) }
	request := bucket.Request{
		Provider: bucket.Provider(r.Provider), Bucket: r.Bucket, Endpoint: r.Endpoint, Region: r.Region,
		Prefix: r.Prefix, Ignore: r.Ignore, Insecure: r.Insecure, TLS: r.TLS, Proxy: r.Proxy, Policy: s.policy(),
	}
	switch request.Provider {
	case bucket.GCP:
		request.Auth.ServiceAccountJSON = r.Secret["serviceaccount"]
	case bucket.Azure:
		request.Auth.Azure = bucket.AzureAuth{
			TenantID: secret("tenantId"), ClientID: secret("clientId"), ClientSecret: secret("clientSecret"),
			ClientCertificate: r.Secret["clientCertificate"], ClientCertificatePassword: secret("clientCertificatePassword"),
			ClientCertificateSendChain: secret("clientCertificateSendChain") == "1" || secret("clientCertificateSendChain") == "true",
			AccountKey:                 secret("accountKey"), SASKey: secret("sasKey"), AuthorityHost: secret("authorityHost"),
		}
	default:
		request.Auth.AccessKey, request.Auth.SecretKey = secret("accesskey"), secret("secretkey")
	}
	endpoint := ""
	if sts := r.STS; sts != nil {
		request.STS = bucket.STS{Provider: sts.Provider, Endpoint: sts.Endpoint, Username: sts.Username, Password: sts.Password, TLS: sts.TLS}
		if sts.Provider == "aws" {
			endpoint = sts.Endpoint
		}
	}
	if r.Login.Provider != "" {
		request.Identity = loginKey(r.Login)
		request.Login = func(ctx context.Context) (bucket.Credential, error) {
			c, err := s.logins.Bucket(ctx, loginRequest(r.Login, r.Proxy), r.Region, endpoint)
			return credentialOf(c), err
		}
	}
	return request
}

func credentialOf(c auth.Credential) bucket.Credential {
	return bucket.Credential{AccessKey: c.AccessKey, SecretKey: c.SecretKey, SessionToken: c.SessionToken, BearerToken: c.Bearer, Expires: c.Expires}
}
