package authtest

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	signer "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// awsKey is what the stand-in knows of a credential.
type awsKey struct{ secret, session, holder string }

// AWSRole is the role that everybody may assume, and AWSCluster the cluster that there is.
const (
	AWSRole    = "arn:aws:iam::123456789012:role/apps"
	AWSCluster = "arn:aws:eks:eu-central-1:123456789012:cluster/far"
)

// NewAWSKey makes a credential.
func (c *Clouds) NewAWSKey(holder string) (id, secret, session string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made++
	id, secret, session = fmt.Sprintf("ASIA%04d", c.made), fmt.Sprintf("%s-secret-%d", Canary, c.made), fmt.Sprintf("%s-session-%d", Canary, c.made)
	c.keys[id] = awsKey{secret, session, holder}
	return id, secret, session
}

func (c *Clouds) key(id string) awsKey {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.keys[id]
}

// Expires is when all that the stand-in gives ends.
func (c *Clouds) Expires() time.Time { return time.Now().Add(time.Hour).Truncate(time.Second) }

func (c *Clouds) assume(w http.ResponseWriter, r *http.Request) {
	holder, err := subject(r.FormValue("WebIdentityToken"), "sts.amazonaws.com")
	w.Header().Set("Content-Type", "text/xml")
	if err != nil || r.FormValue("Action") != "AssumeRoleWithWebIdentity" || r.FormValue("RoleArn") != AWSRole || len(r.FormValue("RoleSessionName")) > 64 {
		w.WriteHeader(http.StatusForbidden)
		_, _ = fmt.Fprintf(w, `<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>%s</Message></Error><RequestId>%d</RequestId></ErrorResponse>`, Canary, time.Now().UnixNano())
		return
	}
	id, secret, session := c.NewAWSKey(holder + " as " + r.FormValue("RoleSessionName"))
	_, _ = fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult><Credentials>
<AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken><Expiration>%s</Expiration>
</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`, id, secret, session, c.Expires().UTC().Format(time.RFC3339))
}

func (c *Clouds) awsMetadata(w http.ResponseWriter, r *http.Request) {
	const list = "/latest/meta-data/iam/security-credentials/"
	switch {
	case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token":
		w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "600")
		_, _ = io.WriteString(w, Canary)
	case r.Header.Get("X-Aws-Ec2-Metadata-Token") != Canary:
		w.WriteHeader(http.StatusUnauthorized)
	case r.URL.Path == list:
		_, _ = io.WriteString(w, "node")
	case r.URL.Path == list+"node":
		id, secret, session := c.NewAWSKey("the machine")
		answer(w, http.StatusOK, map[string]any{"Code": "Success", "AccessKeyId": id, "SecretAccessKey": secret, "Token": session, "Expiration": c.Expires()})
	default:
		http.NotFound(w, r)
	}
}

// awsService answers what is signed.
func (c *Clouds) awsService(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	holder, region := c.signedBy(r, body)
	if holder == "" {
		answer(w, http.StatusBadRequest, map[string]any{"__type": "com.amazon#UnrecognizedClientException", "message": Canary})
		return
	}
	password := base64.StdEncoding.EncodeToString([]byte("AWS:" + Canary + " for " + holder))
	switch target := r.Header.Get("X-Amz-Target"); {
	case r.Host == "api.ecr."+region+".amazonaws.com" && target == "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken" && string(body) == "{}":
		answer(w, http.StatusOK, map[string]any{"authorizationData": []any{map[string]any{"authorizationToken": password, "expiresAt": float64(c.Expires().Unix())}}})
	case r.Host == "api.ecr-public.us-east-1.amazonaws.com" && region == "us-east-1" && target == "SpencerFrontendService.GetAuthorizationToken":
		answer(w, http.StatusOK, map[string]any{"authorizationData": map[string]any{"authorizationToken": password, "expiresAt": float64(c.Expires().Unix())}})
	case r.Host == "eks."+region+".amazonaws.com" && r.URL.Path == "/clusters/far":
		answer(w, http.StatusOK, map[string]any{"cluster": map[string]any{"endpoint": "https://far.eks.example.com", "certificateAuthority": map[string]any{"data": []byte("the authority of AWS")}}})
	case r.Host == "kms."+region+".amazonaws.com":
		c.keyService(w, target, body)
	default:
		w.Header().Set("X-Amzn-Errortype", "ResourceNotFoundException:http://internal.amazon.com/")
		answer(w, http.StatusNotFound, map[string]any{"message": Canary})
	}
}

// keyService seals and opens: what is sealed is only turned around.
func (c *Clouds) keyService(w http.ResponseWriter, target string, body []byte) {
	var fields struct{ KeyId, Plaintext, CiphertextBlob string }
	_ = json.Unmarshal(body, &fields)
	from, to, name := fields.CiphertextBlob, "Plaintext", "TrentService.Decrypt"
	if target == "TrentService.Encrypt" {
		from, to, name = fields.Plaintext, "CiphertextBlob", target
	}
	content, err := base64.StdEncoding.DecodeString(from)
	if err != nil || target != name {
		answer(w, http.StatusBadRequest, map[string]any{"__type": "InvalidCiphertextException", "message": Canary})
		return
	}
	slices.Reverse(content)
	answer(w, http.StatusOK, map[string]any{to: content, "KeyId": fields.KeyId})
}

// signedBy verifies the signature of a request; empty where it is not right.
func (c *Clouds) signedBy(r *http.Request, body []byte) (holder, region string) {
	authorization := r.Header.Get("Authorization")
	_, rest, _ := strings.Cut(authorization, "Credential=")
	scope, rest, _ := strings.Cut(rest, ",")
	_, rest, _ = strings.Cut(rest, "SignedHeaders=")
	headers, _, _ := strings.Cut(rest, ",")
	parts := strings.Split(scope, "/")
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if len(parts) != 5 || err != nil {
		return "", ""
	}
	key := c.key(parts[0])
	if r.Header.Get("X-Amz-Security-Token") != key.session {
		return "", ""
	}
	again, _ := http.NewRequestWithContext(context.Background(), r.Method, "https://"+r.Host+r.URL.RequestURI(), nil)
	for _, name := range strings.Split(headers, ";") {
		if value := r.Header.Get(name); value != "" && name != "authorization" {
			again.Header.Set(name, value)
		}
	}
	again.ContentLength = r.ContentLength
	hash := sha256.Sum256(body)
	sum := hex.EncodeToString(hash[:])
	if signer.NewSigner().SignHTTP(context.Background(), aws.Credentials{AccessKeyID: parts[0], SecretAccessKey: key.secret, SessionToken: key.session}, again, sum, parts[3], parts[2], at) != nil {
		return "", ""
	}
	if again.Header.Get("Authorization") != authorization {
		return "", ""
	}
	return key.holder, parts[2]
}

// WhoIs verifies a token for a cluster of EKS, as AWS does when the cluster asks it.
func (c *Clouds) WhoIs(token, cluster string) (holder string, err error) {
	text, ok := strings.CutPrefix(token, "k8s-aws-v1.")
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if !ok || err != nil {
		return "", fmt.Errorf("no token of EKS")
	}
	u, err := url.Parse(string(raw))
	if err != nil {
		return "", err
	}
	query := u.Query()
	if u.Scheme != "https" || u.Host != "sts.eu-central-1.amazonaws.com" || query.Get("Action") != "GetCallerIdentity" ||
		query.Get("X-Amz-SignedHeaders") != "host;x-k8s-aws-id" || query.Get("X-Amz-Expires") != "900" {
		return "", fmt.Errorf("not as EKS wants it")
	}
	id, _, _ := strings.Cut(query.Get("X-Amz-Credential"), "/")
	at, err := time.Parse("20060102T150405Z", query.Get("X-Amz-Date"))
	if err != nil {
		return "", err
	}
	key := c.key(id)
	again, _ := http.NewRequestWithContext(context.Background(), http.MethodGet, "https://"+u.Host+"/?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Expires=900", nil)
	again.Header.Set("X-K8s-Aws-Id", cluster)
	signed, _, err := signer.NewSigner().PresignHTTP(context.Background(), aws.Credentials{AccessKeyID: id, SecretAccessKey: key.secret, SessionToken: key.session}, again,
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "sts", "eu-central-1", at)
	if err != nil || signed != u.String() {
		return "", fmt.Errorf("the signature is wrong")
	}
	return key.holder, nil
}
