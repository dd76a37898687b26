package azure

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/auth"
)

// FuzzAnswers reads what somebody may answer in the name of Azure.
func FuzzAnswers(f *testing.F) {
	for _, seed := range []string{
		"a.eyJleHAiOjE3MDAwMDAwMDB9.b", "a.eyJleHAiOi0xfQ.b", "a.eyJleHAiOjFlMzAwfQ.b", "a.b", "..", `{"errors":[{"code":"DENIED"}]}`, `{"error":{"code":"x y"}}`,
		"apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: [{name: a, context: {cluster: a}}]\nclusters: [{name: a, cluster: {server: https://a, certificate-authority-data: YQ==}}]\n",
		"current-context: a\ncontexts: [{name: a}]\n", "contexts: [null]\nclusters: [null]\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		if at := ends(body); !at.IsZero() && at.Before(time.Unix(0, 0)) {
			t.Errorf("a token ends at %s", at)
		}
		for _, given := range []string{"", "https://known.example.com"} {
			cluster := auth.Cluster{Address: given}
			found := fill(&cluster, []byte(body))
			if found != (len(cluster.CA) > 0) || given != "" && cluster.Address != given {
				t.Errorf("found %t in it: %+v", found, cluster)
			}
		}
		for _, code := range []string{registryCode(http.Header{}, []byte(body)), managerCode(http.Header{}, []byte(body))} {
			refusal := &auth.Refusal{Status: 400, Code: code}
			if text := refusal.Error(); len(text) > 100 || strings.ContainsAny(text, "\n\r\x00") {
				t.Errorf("an error with what was answered: %q", text)
			}
		}
	})
}
