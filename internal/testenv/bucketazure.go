package testenv

import (
	"crypto"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// SharedAccess is a shared access signature for the whole account, which ends at a
// time.
func (s *BucketServer) SharedAccess(ends time.Time) string {
	values := url.Values{
		"sv": {"2022-11-02"}, "ss": {"b"}, "srt": {"sco"}, "sp": {"rl"}, "se": {ends.UTC().Format(time.RFC3339)}, "spr": {"https,http"},
	}
	values.Set("sig", s.sharedAccess(values))
	return values.Encode()
}

func (s *BucketServer) sharedAccess(v url.Values) string {
	text := s.options.AccessKey + "\n"
	for _, name := range []string{"sp", "ss", "srt", "st", "se", "sip", "spr", "sv", "ses"} {
		text += v.Get(name) + "\n"
	}
	return base64.StdEncoding.EncodeToString(bucketMAC(s.account, text))
}

// unescaped is a part of a path as it was before it was sent.
func unescaped(text string) string {
	plain, err := url.PathUnescape(text)
	if err != nil {
		return text
	}
	return plain
}

// azure answers requests of Azure Blob Storage, with the account in the path, and
// those of its login.
func (s *BucketServer) azure(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasSuffix(r.URL.Path, "/.well-known/openid-configuration"):
		s.azureAuthority(w, r)
		return
	case strings.HasSuffix(r.URL.Path, "/oauth2/v2.0/token"):
		s.azureToken(w, r)
		return
	}
	if status, code := s.azureSigned(r); code != "" {
		s.azureFail(w, status, code)
		return
	}
	parts := strings.SplitN(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/", 3)
	query := r.URL.Query()
	switch {
	case r.Method != http.MethodGet || len(parts) < 2 || parts[0] != s.options.AccessKey || r.Header.Get("X-Ms-Version") == "":
		s.azureFail(w, http.StatusBadRequest, "InvalidUri")
	case len(parts) == 3:
		s.azureGet(w, r, parts[1], unescaped(parts[2]))
	case query.Get("comp") == "list" && query.Get("restype") == "container":
		s.azureList(w, parts[1], query)
	default:
		s.azureFail(w, http.StatusBadRequest, "InvalidQueryParameterValue")
	}
}

// azurePage is a page as Azure answers it.
type azurePage struct {
	XMLName       xml.Name `xml:"EnumerationResults"`
	ContainerName string   `xml:",attr"`
	Prefix        string
	Blobs         struct{ Blob []azureItem }
	NextMarker    string
}

type azureItem struct {
	Name       azureName
	Properties struct {
		LastModified  string `xml:"Last-Modified"`
		Etag          string
		ContentLength int `xml:"Content-Length"`
		BlobType      string
	}
}

// azureName is a name, which is escaped where XML cannot hold it.
type azureName struct {
	Encoded bool   `xml:",attr,omitempty"`
	Text    string `xml:",chardata"`
}

func (s *BucketServer) azureList(w http.ResponseWriter, container string, query url.Values) {
	page, ok := s.page(container, query.Get("prefix"), query.Get("marker"))
	if !ok {
		s.azureFail(w, http.StatusNotFound, "ContainerNotFound")
		return
	}
	answer := azurePage{ContainerName: container, Prefix: query.Get("prefix"), NextMarker: page.next}
	for _, key := range page.keys {
		o := page.objects[key]
		item := azureItem{Name: azureName{Text: key}}
		if strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r == 0xFFFD }) {
			item.Name = azureName{Encoded: true, Text: url.PathEscape(key)}
		}
		item.Properties.LastModified = bucketTime().Format(http.TimeFormat)
		item.Properties.Etag = s.etag(o)
		item.Properties.ContentLength = len(o.content)
		item.Properties.BlobType = "BlockBlob"
		answer.Blobs.Blob = append(answer.Blobs.Blob, item)
	}
	w.Header().Set("Content-Type", "application/xml")
	_ = xml.NewEncoder(w).Encode(answer)
}

func (s *BucketServer) azureGet(w http.ResponseWriter, r *http.Request, container, key string) {
	o, ok := s.object(container, key)
	etag := `"` + s.etag(o) + `"`
	switch match := r.Header.Get("If-Match"); {
	case !ok:
		s.azureFail(w, http.StatusNotFound, "BlobNotFound")
	case match != "" && match != etag:
		s.azureFail(w, http.StatusPreconditionFailed, "ConditionNotMet")
	default:
		w.Header().Set("ETag", etag)
		w.Header().Set("Last-Modified", bucketTime().Format(http.TimeFormat))
		w.Header().Set("X-Ms-Blob-Type", "BlockBlob")
		_, _ = io.WriteString(w, o.content)
	}
}

func (s *BucketServer) azureFail(w http.ResponseWriter, status int, code string) {
	s.mu.Lock()
	s.made++
	message := fmt.Sprintf("request %d is not answered", s.made)
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/xml")
	w.Header().Set("X-Ms-Error-Code", code)
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "<Error><Code>%s</Code><Message>%s</Message></Error>", code, message)
}

// azureSigned checks the credential of a request: a shared key's signature, a shared
// access signature, or a token.
func (s *BucketServer) azureSigned(r *http.Request) (status int, code string) {
	kind, value, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	query := r.URL.Query()
	switch {
	case kind == "SharedKey":
		if value != s.options.AccessKey+":"+s.azureSignature(r) {
			return http.StatusForbidden, "AuthenticationFailed"
		}
	case kind == "Bearer":
		if !s.holds(value) {
			return http.StatusUnauthorized, "InvalidAuthenticationInfo"
		}
	case query.Has("sig"):
		ends, err := time.Parse(time.RFC3339, query.Get("se"))
		if err != nil || ends.Before(time.Now()) || !hmac.Equal([]byte(query.Get("sig")), []byte(s.sharedAccess(query))) {
			return http.StatusForbidden, "AuthenticationFailed"
		}
	case !s.options.Public:
		return http.StatusUnauthorized, "NoAuthenticationInformation"
	}
	return 0, ""
}

// azureSignature is that of a request with the account's key.
func (s *BucketServer) azureSignature(r *http.Request) string {
	h := r.Header.Get
	length := h("Content-Length")
	if length == "0" {
		length = ""
	}
	lines := []string{
		r.Method, h("Content-Encoding"), h("Content-Language"), length, h("Content-MD5"), h("Content-Type"), "",
		h("If-Modified-Since"), h("If-Match"), h("If-None-Match"), h("If-Unmodified-Since"), h("Range"),
	}
	var own []string
	for name := range r.Header {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-ms-") {
			own = append(own, lower+":"+r.Header.Get(name))
		}
	}
	slices.Sort(own)
	lines = append(lines, own...)
	lines = append(lines, "/"+s.options.AccessKey+r.URL.EscapedPath())
	var parameters []string
	for name, values := range r.URL.Query() {
		slices.Sort(values)
		parameters = append(parameters, strings.ToLower(name)+":"+strings.Join(values, ","))
	}
	slices.Sort(parameters)
	lines = append(lines, parameters...)
	return base64.StdEncoding.EncodeToString(bucketMAC(s.account, strings.Join(lines, "\n")))
}

func (s *BucketServer) azureAuthority(w http.ResponseWriter, r *http.Request) {
	tenant, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	base := s.URL() + "/" + tenant
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{
		"issuer": base + "/v2.0", "authorization_endpoint": base + "/oauth2/v2.0/authorize", "token_endpoint": base + "/oauth2/v2.0/token",
	})
}

// azureToken gives a token for the client's secret, or for an assertion that its
// certificate's key has signed.
func (s *BucketServer) azureToken(w http.ResponseWriter, r *http.Request) {
	s.count("login")
	_ = r.ParseForm()
	form := r.PostForm
	w.Header().Set("Content-Type", "application/json")
	right := form.Get("client_secret") != "" && form.Get("client_secret") == s.options.Password ||
		s.options.Certificate != nil && s.azureAssertion(form.Get("client_assertion"))
	if !right || form.Get("client_id") != s.options.Username || !strings.Contains(form.Get("scope"), "storage.azure.com") {
		w.WriteHeader(http.StatusUnauthorized)
		_ = json.NewEncoder(w).Encode(map[string]any{
			"error": "invalid_client", "error_description": "AADSTS7000215: wrong " + form.Get("client_secret"), "error_codes": []int{7000215},
		})
		return
	}
	_, _, token := s.Session()
	_ = json.NewEncoder(w).Encode(map[string]any{"access_token": token, "expires_in": 3600, "token_type": "Bearer"})
}

func (s *BucketServer) azureAssertion(assertion string) bool {
	parts := strings.Split(assertion, ".")
	key, ok := s.options.Certificate.PublicKey.(*rsa.PublicKey)
	if len(parts) != 3 || !ok {
		return false
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return false
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	return rsa.VerifyPSS(key, crypto.SHA256, sum[:], signature, nil) == nil
}
