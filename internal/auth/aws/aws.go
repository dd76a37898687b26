// Package aws logs in at Amazon Web Services: at its security token service, container
// registries, CodeCommit and EKS.
//
// The SDK finds the operator's own credentials and assumes roles. The three single requests
// beyond that are made here: the SDK's packages for these services weigh megabytes.
package aws

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/plumb-gitops/plumb/internal/auth"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Name is that of the provider.
const Name = "aws"

const (
	roleAnnotation = "eks.amazonaws.com/role-arn"
	audience       = "sts.amazonaws.com"
	// longestSession is the length of the name of a session.
	longestSession = 64
)

// Cloud implements auth.Cloud and what goes with it.
type Cloud struct {
	patterns patterns
	// suffix ends the names of sessions.
	suffix string
}

// patterns are the forms of names.
type patterns struct{ role, region, sts, registry, cluster *regexp.Regexp }

// New makes a Cloud. The name of a session in which a service account is ends with the
// suffix, behind its name, its namespace and the region: policies may ask for that.
func New(suffix string) *Cloud {
	return &Cloud{suffix: suffix, patterns: patterns{
		role:   regexp.MustCompile(`^arn:aws[\w-]*:iam::[0-9]{1,30}:role/[\w+=,.@/-]{1,200}$`),
		region: regexp.MustCompile(`^[a-z]{2}[a-z0-9-]{1,40}$`),
		// https://docs.aws.amazon.com/general/latest/gr/sts.html, and VPC endpoints.
		sts: regexp.MustCompile(`^([a-z0-9-]+\.)?sts(-fips)?(\.[a-z0-9-]+)?(\.vpce)?\.amazonaws\.com(\.cn)?$`),
		// As in AWS's own credential helper for registries.
		registry: regexp.MustCompile(`^[0-9]+\.dkr[.-]ecr(?:-fips)?\.([a-z0-9-]+)\.(amazonaws\.com(\.cn)?|amazonaws\.eu|sc2s\.sgov\.gov|c2s\.ic\.gov|cloud\.adc-e\.uk|csp\.hci\.ic\.gov|on\.aws)$`),
		cluster:  regexp.MustCompile(`^arn:aws[\w-]*:eks:([a-z0-9-]{1,40}):[0-9]{1,30}:cluster/([A-Za-z0-9][A-Za-z0-9_-]{0,99})$`),
	}}
}

// Claim reads the role that a service account asks for.
func (c *Cloud) Claim(_ context.Context, _ *http.Client, annotations map[string]string) (auth.Claim, error) {
	role := annotations[roleAnnotation]
	switch {
	case role == "":
		return auth.Claim{}, auth.Misconfigured("it has no annotation %s; set it to the ARN of the role that it is to assume", roleAnnotation)
	case !c.patterns.role.MatchString(role):
		return auth.Claim{}, auth.Misconfigured("its annotation %s is no ARN as arn:aws:iam::123456789012:role/NAME", roleAnnotation)
	}
	return auth.Claim{Audiences: []string{audience}, Identity: role}, nil
}

// Access gives credentials of the operator's own, or of the role of a service account.
func (c *Cloud) Access(ctx context.Context, who auth.Subject, scope auth.Scope) (auth.Credential, error) {
	if scope.Endpoint != "" {
		if err := c.checkSTS(scope.Endpoint); err != nil {
			return auth.Credential{}, err
		}
	}
	if scope.Region != "" && !c.patterns.region.MatchString(scope.Region) {
		return auth.Credential{}, auth.Misconfigured("the region is no name as eu-central-1")
	}
	if who.Own() {
		return own(ctx, who.HTTP, scope)
	}
	return c.assume(ctx, who, scope)
}

// checkSTS refuses an address that is not AWS's: it is sent a token.
func (c *Cloud) checkSTS(endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "https" || u.User != nil || u.Port() != "" || (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.Fragment != "" ||
		!c.patterns.sts.MatchString(u.Hostname()) {
		return auth.Misconfigured("the STS endpoint is none of AWS's as https://sts.REGION.amazonaws.com")
	}
	return nil
}

// own gives the operator's credentials, as the SDK finds them: in the environment, in
// files, and at the metadata services of pods, containers and machines.
func own(ctx context.Context, client *http.Client, scope auth.Scope) (auth.Credential, error) {
	region := scope.Region
	if region == "" {
		region = os.Getenv("AWS_REGION")
	}
	if region == "" {
		return auth.Credential{}, auth.Misconfigured("no region is known; set the environment variable AWS_REGION of the operator, which EKS sets in pods with an identity")
	}
	load := func(client config.HTTPClient) (sdk.Config, error) {
		options := []func(*config.LoadOptions) error{config.WithHTTPClient(client), config.WithRegion(region)}
		if scope.Endpoint != "" {
			options = append(options, config.WithBaseEndpoint(scope.Endpoint))
		}
		return config.LoadDefaultConfig(ctx, options...)
	}
	loaded, err := load(client)
	if err != nil {
		// Where the environment names an authority (AWS_CA_BUNDLE), the SDK takes no
		// client but its own.
		loaded, err = load(awshttp.NewBuildableClient().WithTimeout(client.Timeout))
	}
	if err != nil {
		return auth.Credential{}, auth.Misconfigured("the AWS configuration in the operator's environment cannot be read")
	}
	found, err := loaded.Credentials.Retrieve(ctx)
	if err != nil {
		const remedy = "see that the operator has an identity: IAM roles for service accounts, EKS Pod Identity, or that of the machine"
		return auth.Credential{}, auth.Hinted(refusal(err, remedy), remedy)
	}
	return credential(found), nil
}

// assume exchanges the token of a service account for credentials of its role.
func (c *Cloud) assume(ctx context.Context, who auth.Subject, scope auth.Scope) (auth.Credential, error) {
	if scope.Region == "" {
		return auth.Credential{}, auth.Misconfigured("a service account needs a region to log in; set it in the object")
	}
	options := sts.Options{Region: scope.Region, HTTPClient: who.HTTP}
	if endpoint := endpoint("STS", scope.Endpoint); endpoint != "" {
		options.BaseEndpoint = &endpoint
	}
	answer, err := sts.New(options).AssumeRoleWithWebIdentity(ctx, &sts.AssumeRoleWithWebIdentityInput{
		RoleArn: &who.Claim.Identity, RoleSessionName: sdk.String(c.session(who.Identity, scope.Region)), WebIdentityToken: &who.Token,
	})
	if err != nil {
		return auth.Credential{}, refusal(err, fmt.Sprintf("see that the role %q trusts the cluster's issuer, subject system:serviceaccount:%s:%s and audience %s",
			who.Claim.Identity, who.Identity.Namespace, who.Identity.ServiceAccount, strings.Join(who.Claim.Audiences, ",")))
	}
	given := answer.Credentials
	if given == nil || given.AccessKeyId == nil || given.SecretAccessKey == nil || given.SessionToken == nil {
		return auth.Credential{}, &auth.Problem{Kind: gitops.Transient, Text: "the answer has no credentials"}
	}
	return auth.Credential{AccessKey: *given.AccessKeyId, SecretKey: *given.SecretAccessKey, SessionToken: *given.SessionToken, Expires: sdk.ToTime(given.Expiration)}, nil
}

// session is the name of a session, in the length that AWS takes.
func (c *Cloud) session(who auth.Identity, region string) string {
	name := strings.Join([]string{who.ServiceAccount, who.Namespace, region, c.suffix}, ".")
	return name[:min(len(name), longestSession)]
}

func credential(c sdk.Credentials) auth.Credential {
	made := auth.Credential{AccessKey: c.AccessKeyID, SecretKey: c.SecretAccessKey, SessionToken: c.SessionToken}
	if c.CanExpire {
		made.Expires = c.Expires
	}
	return made
}

// endpoint is the address of a service: the given one, or that of the environment, as the
// SDK reads it; empty for AWS's.
func endpoint(service, given string) string {
	for _, address := range []string{given, os.Getenv("AWS_ENDPOINT_URL_" + service), os.Getenv("AWS_ENDPOINT_URL")} {
		if address != "" {
			return strings.TrimSuffix(address, "/")
		}
	}
	return ""
}

// refusal takes the code from an answer of AWS, and keeps an error of the network.
func refusal(err error, remedy string) error {
	var api smithy.APIError
	var answer *smithyhttp.ResponseError
	if errors.As(err, &api) {
		refused := &auth.Refusal{Code: api.ErrorCode(), Remedy: remedy}
		if errors.As(err, &answer) {
			refused.Status = answer.HTTPStatusCode()
		}
		return refused
	}
	if errors.As(err, &answer) && answer.HTTPStatusCode() != 0 {
		return &auth.Refusal{Status: answer.HTTPStatusCode(), Remedy: remedy}
	}
	return err
}
