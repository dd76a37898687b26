package telemetry

import (
	"regexp"
	"strings"
	"unicode"
)

// secret is a form that secrets have in text.
type secret struct {
	// marks are parts of which one is in every text that has the secret, to
	// look for before the costly pattern; in lower case.
	marks   []string
	pattern *regexp.Regexp
	replace func(groups []string) string
}

const hidden = "***"

// base64 and what stands between its lines, also where a line break is written
// as a backslash and a letter.
const pemBody = `A-Za-z0-9+/=\s\\:,.\-`

// secrets are all forms, in the order in which they are looked for. Read only.
var secrets = []secret{
	{ // private keys, whole or cut off
		marks:   []string{"private key-----"},
		pattern: regexp.MustCompile(`-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----[` + pemBody + `]*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|([^` + pemBody + `])|$)`),
		replace: func(g []string) string { return hidden + g[1] },
	},
	{ // user information of URLs; a mere user of SSH is no secret
		marks:   []string{"://"},
		pattern: regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.\-]*)://([^/\s"']*)@`),
		replace: func(g []string) string {
			if strings.HasPrefix(strings.ToLower(g[1]), "ssh") && !strings.Contains(g[2], ":") {
				return g[0]
			}
			return g[1] + "://" + hidden + "@"
		},
	},
	{ // credentials of an Authorization header, and not "basic authentication"
		marks:   []string{"bearer", "basic"},
		pattern: regexp.MustCompile(`(?i)\b(bearer|basic)\s+([A-Za-z0-9._~+/=\-]{6,})`),
		replace: func(g []string) string {
			if !random(g[2]) {
				return g[0]
			}
			return g[1] + " " + hidden
		},
	},
	{ // JSON web tokens, such as those of service accounts
		marks:   []string{"eyj"},
		pattern: regexp.MustCompile(`\beyJ[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]*`),
		replace: func([]string) string { return hidden },
	},
	{ // tokens with a well-known beginning
		marks:   []string{"ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox", "age-secret-key-"},
		pattern: regexp.MustCompile(`\b(gh[pousr]_|github_pat_|glpat-|xox[abprs]-|AGE-SECRET-KEY-)[A-Za-z0-9_\-]{4,}`),
		replace: func(g []string) string { return g[1] + hidden },
	},
	{ // parameters of URLs and of forms
		marks:   []string{"token=", "password=", "secret=", "signature=", "sig="},
		pattern: regexp.MustCompile(`(?i)\b((?:[a-z0-9]+[_\-])*(?:token|password|secret|signature|sig)=)[^&\s"'\\]+`),
		replace: func(g []string) string { return g[1] + hidden },
	},
}

// Redact replaces what looks like a secret by ***: passwords in URLs, bearer and
// basic credentials, private keys, well-known tokens, secret parameters. It is
// the last thing before every sink, and no licence to put secrets into messages.
func Redact(text string) string {
	lower := strings.ToLower(text)
	for _, s := range secrets {
		if containsAny(lower, s.marks) {
			text = s.hide(text)
		}
	}
	return text
}

func containsAny(text string, parts []string) bool {
	for _, part := range parts {
		if strings.Contains(text, part) {
			return true
		}
	}
	return false
}

// hide replaces every match of the pattern.
func (s secret) hide(text string) string {
	var b strings.Builder
	end := 0
	for _, m := range s.pattern.FindAllStringSubmatchIndex(text, -1) {
		groups := make([]string, len(m)/2)
		for i := range groups {
			if m[2*i] >= 0 {
				groups[i] = text[m[2*i]:m[2*i+1]]
			}
		}
		b.WriteString(text[end:m[0]])
		b.WriteString(s.replace(groups))
		end = m[1]
	}
	b.WriteString(text[end:])
	return b.String()
}

// random tells a token from a word: a token has a digit, a padding, or a capital
// letter inside.
func random(word string) bool {
	for i, r := range word {
		if unicode.IsDigit(r) || r == '=' || (i > 0 && unicode.IsUpper(r)) {
			return true
		}
	}
	return false
}
