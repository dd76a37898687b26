package gitops

import (
	"encoding/json"
	"strconv"
	"strings"
)

// Hidden stands in the place of what must not be shown.
const Hidden = "***"

// Hide takes a secret out of a text: as it is, as JSON has it, and as Go quotes it.
func Hide(text, secret string) string {
	if secret == "" {
		return text
	}
	forms := []string{secret, strings.Trim(strconv.Quote(secret), `"`)}
	if quoted, err := json.Marshal(secret); err == nil {
		forms = append(forms, string(quoted[1:len(quoted)-1]))
	}
	for _, form := range forms {
		text = strings.ReplaceAll(text, form, Hidden)
	}
	return text
}
