package testenv

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// ServiceAccount is the key of a Google service account that the server lets in, in
// JSON.
func (s *BucketServer) ServiceAccount(t testing.TB) []byte {
	t.Helper()
	raw, err := x509.MarshalPKCS8PrivateKey(s.key)
	check(t, err)
	key, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "plumb@example.iam.gserviceaccount.com", "private_key_id": "1",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})),
		"token_uri":   s.URL() + "/token",
	})
	check(t, err)
	return key
}

// google answers requests of Google's JSON API.
func (s *BucketServer) google(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/token" {
		s.googleToken(w, r)
		return
	}
	token, sent := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if sent && !s.holds(token) || !sent && !s.options.Public {
		s.googleFail(w, http.StatusUnauthorized, "authError")
		return
	}
	// The path is looked at as it was sent: the slashes in names are escaped.
	rest, ok := strings.CutPrefix(r.URL.EscapedPath(), "/storage/v1/b/")
	parts := strings.Split(rest, "/")
	if !ok || r.Method != http.MethodGet || len(parts) < 2 || len(parts) > 3 || parts[1] != "o" {
		s.googleFail(w, http.StatusNotFound, "notFound")
		return
	}
	query := r.URL.Query()
	if len(parts) == 3 {
		s.googleGet(w, parts[0], unescaped(parts[2]), query.Get("alt"), query.Get("ifGenerationMatch"))
		return
	}
	page, ok := s.page(parts[0], query.Get("prefix"), query.Get("pageToken"))
	if !ok {
		s.googleFail(w, http.StatusNotFound, "notFound")
		return
	}
	var items []map[string]string
	for _, key := range page.keys {
		o := page.objects[key]
		items = append(items, map[string]string{
			"name": key, "etag": s.etag(o), "size": fmt.Sprint(len(o.content)), "generation": fmt.Sprint(o.generation),
			"crc32c": base64.StdEncoding.EncodeToString(o.crc()),
		})
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": "storage#objects", "items": items, "nextPageToken": page.next})
}

func (s *BucketServer) googleGet(w http.ResponseWriter, bucket, key, alt, generation string) {
	o, ok := s.object(bucket, key)
	switch {
	case !ok || alt != "media":
		s.googleFail(w, http.StatusNotFound, "notFound")
	case generation != "" && generation != fmt.Sprint(o.generation):
		s.googleFail(w, http.StatusPreconditionFailed, "conditionNotMet")
	default:
		w.Header().Set("X-Goog-Generation", fmt.Sprint(o.generation))
		_, _ = io.WriteString(w, o.content)
	}
}

func (s *BucketServer) googleFail(w http.ResponseWriter, status int, reason string) {
	s.mu.Lock()
	s.made++
	message := fmt.Sprintf("request %d is not answered", s.made)
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{
		"code": status, "message": message, "errors": []map[string]string{{"reason": reason, "message": message}},
	}})
}

// googleToken gives a token for an assertion that the service account has signed.
func (s *BucketServer) googleToken(w http.ResponseWriter, r *http.Request) {
	s.count("login")
	w.Header().Set("Content-Type", "application/json")
	if err := s.googleAssertion(r.PostFormValue("assertion")); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": "invalid_grant", "error_description": err.Error()})
		return
	}
	_, _, token := s.Session()
	_ = json.NewEncoder(w).Encode(map[string]any{"access_token": token, "expires_in": 3600, "token_type": "Bearer"})
}

func (s *BucketServer) googleAssertion(assertion string) error {
	parts := strings.Split(assertion, ".")
	if len(parts) != 3 {
		return fmt.Errorf("%q is no assertion", assertion)
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err := rsa.VerifyPKCS1v15(&s.key.PublicKey, crypto.SHA256, sum[:], signature); err != nil {
		return err
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return err
	}
	var claims struct {
		Scope, Aud string
		Exp        int64
	}
	if err := json.Unmarshal(raw, &claims); err != nil {
		return err
	}
	if claims.Aud != s.URL()+"/token" || !strings.Contains(claims.Scope, "devstorage.read_only") || time.Unix(claims.Exp, 0).Before(time.Now()) {
		return fmt.Errorf("assertion for %q, %q until %d", claims.Aud, claims.Scope, claims.Exp)
	}
	return nil
}
