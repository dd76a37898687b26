package aws

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	signer "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/plumb-gitops/plumb/internal/auth"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

const (
	publicRegistry = "public.ecr.aws"
	// publicRegion is where public registries are asked, wherever they are used.
	publicRegion = "us-east-1"
	// codeCommitLife is how long CodeCommit takes a signed password:
	// https://docs.aws.amazon.com/codecommit/latest/userguide/troubleshooting-ch.html
	codeCommitLife = 15 * time.Minute
	// clusterLife is how long a cluster takes a signed request, the longest that EKS
	// allows.
	clusterLife = 15 * time.Minute
	// clusterPrefix is before a signed request that is a token of EKS.
	clusterPrefix = "k8s-aws-v1."
	emptyHash     = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

// Registry logs in at a private or the public registry.
func (c *Cloud) Registry(ctx context.Context, host string, s auth.Session) (auth.Login, error) {
	region, service, target := publicRegion, "ecr-public", "SpencerFrontendService"
	if host != publicRegistry {
		found := c.patterns.registry.FindStringSubmatch(host)
		if found == nil {
			return auth.Login{}, auth.Misconfigured("it is no registry of AWS as ACCOUNT.dkr.ecr.REGION.amazonaws.com or %s", publicRegistry)
		}
		region, service, target = found[1], "ecr", "AmazonEC2ContainerRegistry_V20150921"
	}
	access, err := s.Access(auth.Scope{Region: region})
	if err != nil {
		return auth.Login{}, err
	}
	address, err := addressOf(ctx, service, "api."+service, region)
	if err != nil {
		return auth.Login{}, err
	}
	const nothing = "{}"
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address+"/", strings.NewReader(nothing))
	if err != nil {
		return auth.Login{}, err
	}
	request.Header.Set("Content-Type", "application/x-amz-json-1.1")
	request.Header.Set("X-Amz-Target", target+".GetAuthorizationToken")
	if err := sign(ctx, request, nothing, service, region, access, s.Now()); err != nil {
		return auth.Login{}, err
	}
	var answer struct {
		Data json.RawMessage `json:"authorizationData"`
	}
	if err := auth.Ask(s.HTTP, request, &answer, code); err != nil {
		return auth.Login{}, auth.Remedied(err, "see that its identity may call "+service+":GetAuthorizationToken")
	}
	return registryLogin(answer.Data)
}

// registryLogin reads an authorization: one, or the first of a list.
func registryLogin(data json.RawMessage) (auth.Login, error) {
	type authorization struct {
		Token   string  `json:"authorizationToken"`
		Expires float64 `json:"expiresAt"`
	}
	var one authorization
	var list []authorization
	if json.Unmarshal(data, &list) == nil && len(list) > 0 {
		one = list[0]
	} else if json.Unmarshal(data, &one) != nil {
		one = authorization{}
	}
	pair, err := base64.StdEncoding.DecodeString(one.Token)
	user, password, ok := strings.Cut(string(pair), ":")
	if err != nil || !ok || user == "" || password == "" {
		return auth.Login{}, &auth.Problem{Kind: gitops.Transient, Text: "the answer has no login"}
	}
	login := auth.Login{Username: user, Password: password}
	if one.Expires > 0 {
		login.Expires = time.Unix(int64(one.Expires), 0)
	}
	return login, nil
}

// Git signs the URL of a repository of CodeCommit, which is its password. The form is that
// of AWS's own helper for Git.
func (c *Cloud) Git(_ context.Context, repository *url.URL, s auth.Session) (auth.Login, error) {
	host := repository.Hostname()
	parts := strings.Split(host, ".")
	if repository.Scheme != "https" || len(parts) < 4 || (parts[0] != "git-codecommit" && parts[0] != "git-codecommit-fips") || !c.patterns.region.MatchString(parts[1]) ||
		(!strings.HasSuffix(host, ".amazonaws.com") && !strings.HasSuffix(host, ".amazonaws.com.cn")) {
		return auth.Login{}, auth.Misconfigured("it is no repository of CodeCommit as https://git-codecommit.REGION.amazonaws.com/v1/repos/NAME")
	}
	region := parts[1]
	access, err := s.Access(auth.Scope{Region: region})
	if err != nil {
		return auth.Login{}, err
	}
	now := s.Now().UTC()
	at, day := now.Format("20060102T150405"), now.Format("20060102")
	canonical := fmt.Sprintf("GIT\n%s\n\nhost:%s\n\nhost\n", repository.EscapedPath(), repository.Host)
	sum := sha256.Sum256([]byte(canonical))
	scope := day + "/" + region + "/codecommit/aws4_request"
	key := []byte("AWS4" + access.SecretKey)
	for _, part := range []string{day, region, "codecommit", "aws4_request", "AWS4-HMAC-SHA256\n" + at + "\n" + scope + "\n" + hex.EncodeToString(sum[:])} {
		mac := hmac.New(sha256.New, key)
		_, _ = io.WriteString(mac, part)
		key = mac.Sum(nil)
	}
	login := auth.Login{Username: access.AccessKey, Password: at + "Z" + hex.EncodeToString(key), Expires: now.Add(codeCommitLife)}
	if access.SessionToken != "" {
		login.Username += "%" + access.SessionToken
	}
	login.Expires = sooner(login.Expires, access.Expires)
	return login, nil
}

// sooner is the first of two times at which something ends; the zero value is none.
func sooner(a, b time.Time) time.Time {
	if !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// Cluster logs in at a cluster of EKS: its token is a signed request that asks AWS who
// signed it. See https://docs.aws.amazon.com/eks/latest/userguide/cluster-auth.html.
func (c *Cloud) Cluster(ctx context.Context, cluster auth.Cluster, s auth.Session) (auth.Cluster, auth.Login, error) {
	found := c.patterns.cluster.FindStringSubmatch(cluster.Name)
	if found == nil {
		return auth.Cluster{}, auth.Login{}, auth.Misconfigured("its name is no ARN as arn:aws:eks:REGION:ACCOUNT:cluster/NAME")
	}
	region, name := found[1], found[2]
	access, err := s.Access(auth.Scope{Region: region})
	if err != nil {
		return auth.Cluster{}, auth.Login{}, err
	}
	if !cluster.Complete(s) {
		if err := describe(ctx, &cluster, region, name, access, s); err != nil {
			return auth.Cluster{}, auth.Login{}, err
		}
	}
	now := s.Now()
	// EKS takes requests to AWS's own addresses only, whatever the environment says.
	domain, err := domainOf(ctx, region)
	if err != nil {
		return auth.Cluster{}, auth.Login{}, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("https://sts.%s/?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Expires=%d", domain, int(clusterLife/time.Second)), nil)
	if err != nil {
		return auth.Cluster{}, auth.Login{}, err
	}
	request.Header.Set("X-K8s-Aws-Id", name)
	signed, _, err := signer.NewSigner().PresignHTTP(ctx, keys(access), request, emptyHash, "sts", region, now)
	if err != nil {
		return auth.Cluster{}, auth.Login{}, err
	}
	token := clusterPrefix + base64.RawURLEncoding.EncodeToString([]byte(signed))
	return cluster, auth.Login{Bearer: token, Expires: sooner(now.Add(clusterLife), access.Expires)}, nil
}

// describe asks for what is missing of a cluster.
func describe(ctx context.Context, cluster *auth.Cluster, region, name string, access auth.Credential, s auth.Session) error {
	address, err := addressOf(ctx, "eks", "eks", region)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/clusters/"+name, nil)
	if err != nil {
		return err
	}
	if err := sign(ctx, request, "", "eks", region, access, s.Now()); err != nil {
		return err
	}
	var answer struct {
		Cluster struct {
			Endpoint             string `json:"endpoint"`
			CertificateAuthority struct {
				Data []byte `json:"data"`
			} `json:"certificateAuthority"`
		} `json:"cluster"`
	}
	if err := auth.Ask(s.HTTP, request, &answer, code); err != nil {
		return auth.Remedied(err, "see that the cluster exists and that its identity may call eks:DescribeCluster")
	}
	found := answer.Cluster
	if found.Endpoint == "" || len(found.CertificateAuthority.Data) == 0 {
		return &auth.Problem{Kind: gitops.Transient, Text: "AWS knows no address of it yet; it may be under construction"}
	}
	if !cluster.Locate(found.CertificateAuthority.Data, found.Endpoint) {
		return auth.ElsewhereError()
	}
	return nil
}

// addressOf is where a service is in a region.
func addressOf(ctx context.Context, service, prefix, region string) (string, error) {
	if given := endpoint(strings.ToUpper(strings.ReplaceAll(service, "-", "_")), ""); given != "" {
		return given, nil
	}
	domain, err := domainOf(ctx, region)
	return "https://" + prefix + "." + domain, err
}

// domainOf is the domain of a region's services: that which the SDK knows for its security
// token service, as it differs between AWS's partitions.
func domainOf(ctx context.Context, region string) (string, error) {
	found, err := sts.NewDefaultEndpointResolverV2().ResolveEndpoint(ctx, sts.EndpointParameters{Region: &region, UseFIPS: sdk.Bool(false), UseDualStack: sdk.Bool(false), UseGlobalEndpoint: sdk.Bool(false)})
	if err == nil {
		if domain, ok := strings.CutPrefix(found.URI.Hostname(), "sts."); ok {
			return domain, nil
		}
	}
	return "", auth.Misconfigured("AWS has no region %q", region)
}

// sign signs a request with a body.
func sign(ctx context.Context, request *http.Request, body, service, region string, access auth.Credential, at time.Time) error {
	sum := sha256.Sum256([]byte(body))
	return signer.NewSigner().SignHTTP(ctx, keys(access), request, hex.EncodeToString(sum[:]), service, region, at)
}

func keys(c auth.Credential) sdk.Credentials {
	return sdk.Credentials{AccessKeyID: c.AccessKey, SecretAccessKey: c.SecretKey, SessionToken: c.SessionToken}
}

// code finds the name of an error: AWS puts it into a header, or the body, with a
// namespace before it or an address behind it.
func code(header http.Header, body []byte) string {
	name := header.Get("X-Amzn-Errortype")
	if name == "" {
		var answer struct {
			Type string `json:"__type"`
		}
		_ = json.Unmarshal(body, &answer)
		name = answer.Type
	}
	name, _, _ = strings.Cut(name, ":")
	if _, after, ok := strings.Cut(name, "#"); ok {
		name = after
	}
	return name
}
