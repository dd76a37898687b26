package gitops_test

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

func TestHide(t *testing.T) {
	t.Parallel()
	for _, secret := range []string{"plain", "p&ss<1>", `pa"ss`, `pa\ss`, "new\nline", "ünïcode\u2028", `"quoted"`} {
		encoded, err := json.Marshal(map[string]string{"a": secret})
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"it is " + secret + " here", string(encoded), "got " + strconv.Quote(secret)} {
			hidden := gitops.Hide(text, secret)
			if !strings.Contains(hidden, gitops.Hidden) || strings.Contains(hidden, secret) {
				t.Errorf("%q is shown as %q", text, hidden)
			}
		}
	}
	if got := gitops.Hide("a text", ""); got != "a text" {
		t.Errorf("got %q", got)
	}
}
