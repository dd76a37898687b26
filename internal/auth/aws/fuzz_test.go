package aws

import (
	"net/http"
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/auth"
)

// FuzzAnswers reads what somebody may answer in the name of AWS.
func FuzzAnswers(f *testing.F) {
	for _, seed := range []string{
		`[{"authorizationToken":"QVdTOng=","expiresAt":1.7e9}]`, `{"authorizationToken":"QVdTOng=","expiresAt":-1}`, `[]`, `[null]`, `{"authorizationToken":1}`,
		`{"authorizationToken":"Og==","expiresAt":1e300}`, `{"__type":"a#b:c"}`, `{"__type":7}`, "",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		login, err := registryLogin([]byte(body))
		if (err == nil) != (login.Username != "" && login.Password != "") {
			t.Errorf("login %+v, error %v", login, err)
		}
		refusal := &auth.Refusal{Status: 400, Code: code(http.Header{}, []byte(body))}
		if text := refusal.Error(); len(text) > 100 || strings.ContainsAny(text, "\n\r\x00") {
			t.Errorf("an error with what was answered: %q", text)
		}
	})
}
