package auth_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/plumb-gitops/plumb/internal/auth"
	"github.com/plumb-gitops/plumb/internal/auth/authtest"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

func TestErrors(t *testing.T) {
	t.Parallel()
	const denied, bad = "AuthenticationFailed", gitops.Denied
	registry := func(r auth.Request, url string) func(*world) error {
		return func(w *world) error { _, err := w.Registry(context.Background(), r, url); return err }
	}
	cluster := func(r auth.Request, c auth.Cluster) func(*world) error {
		return func(w *world) error { _, _, err := w.Cluster(context.Background(), r, c); return err }
	}
	git := func(r auth.Request, url string) func(*world) error {
		return func(w *world) error { _, err := w.Git(context.Background(), r, url); return err }
	}
	bucket := func(r auth.Request, region, sts string) func(*world) error {
		return func(w *world) error { _, err := w.Bucket(context.Background(), r, region, sts); return err }
	}
	other := func(audiences ...string) auth.Request {
		r := as("aws", "apps/all")
		r.Audiences = audiences
		return r
	}
	for name, test := range map[string]struct {
		set    func(*world)
		do     func(*world) error
		kind   gitops.ErrorKind
		reason string
		want   string
	}{
		"an unknown provider": {do: registry(as("acme", "apps/all"), awsRegistry), kind: gitops.Stalled, reason: "InvalidProviderConfiguration",
			want: `provider "acme"|there are aws, azure, gcp`},
		"a provider without Git": {do: git(as("gcp", "apps/all"), "https://source.developers.google.com/x"), kind: gitops.Stalled, reason: "InvalidProviderConfiguration",
			want: "there are aws, azure"},
		"a service account that does not exist": {do: registry(as("aws", "apps/gone"), awsRegistry), kind: bad, reason: denied,
			want: "service account 'apps/gone'|does not exist in this namespace|create it"},
		"no role": {do: registry(as("aws", "apps/none"), awsRegistry), kind: bad, reason: denied, want: "no annotation eks.amazonaws.com/role-arn|ARN of the role"},
		"a role that is none": {set: func(w *world) { w.annotate("apps/all", "eks.amazonaws.com/role-arn", "arn:aws:s3:::canary") },
			do: registry(as("aws", "apps/all"), awsRegistry), kind: bad, reason: denied, want: "eks.amazonaws.com/role-arn is no ARN"},
		"a role that does not trust the cluster": {set: func(w *world) {
			w.annotate("apps/all", "eks.amazonaws.com/role-arn", "arn:aws:iam::123456789012:role/other")
		},
			do: registry(as("aws", "apps/all"), awsRegistry), kind: bad, reason: denied,
			want: "answers 403 AccessDenied|role/other|system:serviceaccount:apps:all|audience sts.amazonaws.com"},
		"the wrong audience": {do: registry(other("mine"), awsRegistry), kind: bad, reason: denied, want: "answers 403 AccessDenied|audience mine"},
		"no tenant": {do: registry(as("azure", "apps/none"), azureRegistry), kind: bad, reason: denied,
			want: "no annotation azure.workload.identity/tenant-id|azure.workload.identity/client-id"},
		"a tenant that is none": {set: func(w *world) { w.annotate("apps/all", "azure.workload.identity/tenant-id", "../canary") },
			do: registry(as("azure", "apps/all"), azureRegistry), kind: bad, reason: denied, want: "azure.workload.identity/tenant-id is no id"},
		"a client without federation": {set: func(w *world) { w.annotate("apps/all", "azure.workload.identity/client-id", "other") },
			do: registry(as("azure", "apps/all"), azureRegistry), kind: bad, reason: denied,
			want: `answers 401 AADSTS700211|client "other"|federated credential|system:serviceaccount:apps:all|api://AzureADTokenExchange`},
		"a Google provider that is none": {set: func(w *world) { w.annotate("apps/all", "gcp.auth.fluxcd.io/workload-identity-provider", "canary") },
			do: registry(as("gcp", "apps/all"), googleRegistry), kind: bad, reason: denied, want: "workload-identity-provider is no name as projects/NUMBER"},
		"a pool that does not trust the cluster": {set: func(w *world) {
			w.annotate("apps/all", "gcp.auth.fluxcd.io/workload-identity-provider", strings.Replace(authtest.GooglePool, "123", "124", 1))
		}, do: registry(as("gcp", "apps/all"), googleRegistry), kind: bad, reason: denied, want: "answers 400|workload identity pool trusts"},
		"a Google service account that is none": {set: func(w *world) { w.annotate("apps/all", "iam.gke.io/gcp-service-account", "x@evil.example.com/canary") },
			do: registry(as("gcp", "apps/all"), googleRegistry), kind: bad, reason: denied, want: "gcp-service-account is no address"},
		"a Google service account that lets nobody in": {set: func(w *world) {
			w.annotate("apps/all", "iam.gke.io/gcp-service-account", "b@project.iam.gserviceaccount.com")
		},
			do: registry(as("gcp", "apps/all"), googleRegistry), kind: bad, reason: denied, want: "answers 403|lets subject system:serviceaccount:apps:all become it"},

		"a registry that is none of AWS":     {do: registry(as("aws", "apps/all"), "oci://123456789012.dkr.ecr.eu-central-1.amazonaws.com.evil.example.com/x"), kind: bad, reason: denied, want: "no registry of AWS"},
		"a registry that is none of Azure":   {do: registry(as("azure", "apps/all"), "oci://evil.example.com/x.azurecr.io"), kind: bad, reason: denied, want: `registry "evil.example.com"|no registry of Azure`},
		"a registry with a port":             {do: registry(as("azure", "apps/all"), "oci://acme.azurecr.io:8443/x"), kind: bad, reason: denied, want: "no registry of Azure"},
		"a registry that is none of Google":  {do: registry(as("gcp", "apps/all"), "oci://gcr.io.evil.example.com/x"), kind: bad, reason: denied, want: "no registry of Google"},
		"a repository that is none of AWS":   {do: git(as("aws", "apps/all"), "https://user:canary@git-codecommit.eu-central-1.evil.example.com/v1"), kind: bad, reason: denied, want: "no repository of CodeCommit"},
		"a repository without TLS":           {do: git(as("azure", "apps/all"), "http://dev.azure.com/x"), kind: bad, reason: denied, want: "use https"},
		"a repository that is none of Azure": {do: git(as("azure", "apps/all"), "https://dev.azure.com.evil.example.com/x"), kind: bad, reason: denied, want: "no repository of Azure DevOps"},
		"one deeper below visualstudio.com":  {do: git(as("azure", "apps/all"), "https://acme.app.visualstudio.com/x"), kind: bad, reason: denied, want: "no repository of Azure DevOps"},
		"visualstudio.com itself":            {do: git(as("azure", "apps/all"), "https://.visualstudio.com/x"), kind: bad, reason: denied, want: "no repository of Azure DevOps"},
		"one at a port":                      {do: git(as("azure", "apps/all"), "https://dev.azure.com:8443/x"), kind: bad, reason: denied, want: "no repository of Azure DevOps"},
		"a bucket without region":            {do: bucket(as("aws", "apps/all"), "", ""), kind: bad, reason: denied, want: "needs a region"},
		"an STS endpoint of somebody else":   {do: bucket(as("aws", "apps/all"), "eu-central-1", "https://evil.example.com/.sts.amazonaws.com"), kind: bad, reason: denied, want: "STS endpoint is none of AWS's"},
		"an STS endpoint without TLS":        {do: bucket(as("aws", "apps/all"), "eu-central-1", "http://sts.amazonaws.com"), kind: bad, reason: denied, want: "STS endpoint is none of AWS's"},
		"a region that is an address":        {do: bucket(as("aws", "apps/all"), "evil.example.com/", ""), kind: bad, reason: denied, want: "the region is no name"},
		"a cluster that is none of AWS":      {do: cluster(as("aws", "apps/all"), auth.Cluster{Name: "arn:aws:eks:evil.example.com/:1:cluster/far"}), kind: bad, reason: denied, want: "no ARN as arn:aws:eks"},
		"a cluster that AWS does not know":   {do: cluster(as("aws", "apps/all"), auth.Cluster{Name: strings.Replace(authtest.AWSCluster, "far", "near", 1)}), kind: bad, reason: denied, want: "answers 404 ResourceNotFoundException|eks:DescribeCluster"},
		"a cluster that is none of Azure":    {do: cluster(as("azure", "apps/all"), auth.Cluster{Name: "far"}), kind: bad, reason: denied, want: "no id as /subscriptions"},
		"a cluster without Entra ID":         {do: cluster(as("azure", "apps/all"), auth.Cluster{Name: strings.Replace(authtest.AzureCluster, "/far", "/closed", 1)}), kind: bad, reason: denied, want: "does not let in identities of Microsoft Entra ID"},
		"a cluster at another address":       {do: cluster(as("azure", "apps/all"), auth.Cluster{Name: authtest.AzureCluster, Address: "https://evil.example.com"}), kind: bad, reason: denied, want: "the cloud knows no such address"},
		"a cluster that is none of Google":   {do: cluster(as("gcp", "apps/all"), auth.Cluster{Name: "projects/x/../y"}), kind: bad, reason: denied, want: "none as projects/PROJECT"},
		"a cluster that Google hides":        {do: cluster(as("gcp", "apps/all"), auth.Cluster{Name: strings.Replace(authtest.GoogleFar, "far", "near", 1)}), kind: bad, reason: denied, want: "answers 403 PERMISSION_DENIED|container.clusters.get"},

		"a cloud that fails": {set: func(w *world) { w.clouds.Fail("api.ecr.eu-central-1.amazonaws.com", 503, authtest.Canary) },
			do: registry(as("aws", "apps/all"), awsRegistry), kind: gitops.Transient, reason: denied, want: "answers 503"},
		"an answer that is no JSON": {set: func(w *world) { w.clouds.Fail("acme.azurecr.io", 200, "<html>"+authtest.Canary) },
			do: registry(as("azure", "apps/all"), azureRegistry), kind: gitops.Transient, reason: denied, want: "its answer cannot be read"},
		"an answer without a login": {set: func(w *world) {
			w.clouds.Fail("api.ecr.eu-central-1.amazonaws.com", 200, `{"authorizationData":[{"authorizationToken":"canary"}]}`)
		},
			do: registry(as("aws", "apps/all"), awsRegistry), kind: gitops.Transient, reason: denied, want: "the answer has no login"},
		"an answer that does not end": {set: func(w *world) { w.clouds.Fail("acme.azurecr.io", 200, strings.Repeat(" ", 2<<20)) },
			do: registry(as("azure", "apps/all"), azureRegistry), kind: gitops.Transient, reason: denied, want: "more than 1048576 bytes"},
		"an error with a name that is none": {set: func(w *world) { w.clouds.Fail("acme.azurecr.io", 403, `{"errors":[{"code":"<canary> x"}]}`) },
			do: registry(as("azure", "apps/all"), azureRegistry), kind: bad, reason: denied, want: "answers 403; see"},
		"tokens that the operator may not ask for": {set: func(w *world) {
			w.refuse = apierrors.NewForbidden(schema.GroupResource{Resource: "serviceaccounts"}, "all", errors.New(authtest.Canary))
		}, do: registry(as("aws", "apps/all"), awsRegistry), kind: bad, reason: denied, want: `no token for audiences "sts.amazonaws.com"|may not create serviceaccounts/token`},
		"an API server that is away": {set: func(w *world) { w.refuse = fmt.Errorf("post: %w", context.DeadlineExceeded) },
			do: registry(as("aws", "apps/all"), awsRegistry), kind: gitops.Transient, reason: denied, want: "no token|the API server: no answer within the timeout"},
		"a service account without a name": {do: registry(auth.Request{Provider: "aws", Identity: auth.Identity{Namespace: "apps"}}, awsRegistry), kind: gitops.Internal, reason: denied, want: "no name"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			if test.set != nil {
				test.set(w)
			}
			w.expect(t, test.kind, test.reason, test.want, func() error { return test.do(w) })
		})
	}
}
