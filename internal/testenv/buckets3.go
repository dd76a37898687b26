package testenv

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// s3Error is an error as S3 answers it.
type s3Error struct {
	XMLName xml.Name `xml:"Error"`
	Code    string
	Message string
	Region  string `xml:",omitempty"`
	// RequestID is another one each time.
	RequestID string `xml:"RequestId"`
}

func (s *BucketServer) s3Fail(w http.ResponseWriter, status int, code string) {
	s.mu.Lock()
	s.made++
	e := s3Error{Code: code, Message: fmt.Sprintf("request %d is not answered", s.made), RequestID: fmt.Sprint(s.made)}
	s.mu.Unlock()
	if code == "AuthorizationHeaderMalformed" {
		e.Region = s.options.Region
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_ = xml.NewEncoder(w).Encode(e)
}

// s3 answers requests of S3, with the bucket in the path or in front of the host.
func (s *BucketServer) s3(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost && r.URL.Path == "/" {
		s.ldap(w, r)
		return
	}
	if status, code := s.s3Signed(r); code != "" {
		s.s3Fail(w, status, code)
		return
	}
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if name, _, ok := strings.Cut(r.Host, ".s3."); ok {
		bucket, key = name, strings.TrimPrefix(r.URL.Path, "/")
	}
	query := r.URL.Query()
	switch {
	case r.Method != http.MethodGet:
		s.s3Fail(w, http.StatusMethodNotAllowed, "MethodNotAllowed")
	case key == "" && query.Has("location"):
		s.count("location")
		w.Header().Set("Content-Type", "application/xml")
		_, _ = fmt.Fprintf(w, `<LocationConstraint xmlns="http://s3.amazonaws.com/doc/2006-03-01/">%s</LocationConstraint>`, s.options.Region)
	case key == "" && query.Get("list-type") == "2":
		s.s3List(w, bucket, query)
	case key == "":
		s.s3Fail(w, http.StatusNotImplemented, "NotImplemented")
	default:
		s.s3Get(w, r, bucket, key)
	}
}

// s3Page is a page as S3 answers it.
type s3Page struct {
	XMLName               xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListBucketResult"`
	Name                  string
	Prefix                string
	KeyCount              int
	MaxKeys               int
	IsTruncated           bool
	NextContinuationToken string `xml:",omitempty"`
	EncodingType          string `xml:",omitempty"`
	Contents              []s3Item
}

type s3Item struct {
	Key          string
	LastModified string
	ETag         string
	Size         int
	StorageClass string
}

func (s *BucketServer) s3List(w http.ResponseWriter, bucket string, query url.Values) {
	after, err := base64.URLEncoding.DecodeString(query.Get("continuation-token"))
	if err != nil {
		s.s3Fail(w, http.StatusBadRequest, "InvalidArgument")
		return
	}
	page, ok := s.page(bucket, query.Get("prefix"), string(after))
	if !ok {
		s.s3Fail(w, http.StatusNotFound, "NoSuchBucket")
		return
	}
	answer := s3Page{
		Name: bucket, Prefix: query.Get("prefix"), KeyCount: len(page.keys), MaxKeys: s.options.PageSize,
		IsTruncated: page.next != "", EncodingType: query.Get("encoding-type"),
	}
	if page.next != "" {
		answer.NextContinuationToken = base64.URLEncoding.EncodeToString([]byte(page.next))
	}
	for _, key := range page.keys {
		o := page.objects[key]
		if answer.EncodingType == "url" {
			key = url.QueryEscape(key)
		}
		answer.Contents = append(answer.Contents, s3Item{
			Key: key, LastModified: bucketTime().Format(time.RFC3339), ETag: `"` + s.etag(o) + `"`, Size: len(o.content), StorageClass: "STANDARD",
		})
	}
	w.Header().Set("Content-Type", "application/xml")
	_ = xml.NewEncoder(w).Encode(answer)
}

func (s *BucketServer) s3Get(w http.ResponseWriter, r *http.Request, bucket, key string) {
	o, ok := s.object(bucket, key)
	etag := `"` + s.etag(o) + `"`
	switch match := r.Header.Get("If-Match"); {
	case !ok:
		s.s3Fail(w, http.StatusNotFound, "NoSuchKey")
		return
	case match != "" && match != etag:
		s.s3Fail(w, http.StatusPreconditionFailed, "PreconditionFailed")
		return
	}
	w.Header().Set("ETag", etag)
	w.Header().Set("Last-Modified", bucketTime().Format(http.TimeFormat))
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = io.WriteString(w, o.content)
}

// s3Signed checks the signature of a request, of version 4, by making it again.
func (s *BucketServer) s3Signed(r *http.Request) (status int, code string) {
	header := r.Header.Get("Authorization")
	if header == "" {
		if s.options.Public {
			return 0, ""
		}
		return http.StatusForbidden, "AccessDenied"
	}
	fields, ok := strings.CutPrefix(header, "AWS4-HMAC-SHA256 ")
	if !ok {
		return http.StatusBadRequest, "InvalidRequest"
	}
	said := map[string]string{}
	for _, field := range strings.Split(fields, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		said[name] = value
	}
	scope := strings.Split(said["Credential"], "/")
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if len(scope) != 5 || err != nil {
		return http.StatusBadRequest, "AuthorizationHeaderMalformed"
	}
	if since := time.Since(at); since > 15*time.Minute || since < -15*time.Minute {
		return http.StatusForbidden, "RequestTimeTooSkewed"
	}
	if scope[2] != s.options.Region && !r.URL.Query().Has("location") {
		return http.StatusBadRequest, "AuthorizationHeaderMalformed"
	}
	secret := s.options.SecretKey
	if scope[0] != s.options.AccessKey {
		session, known := s.known(scope[0])
		switch {
		case !known && strings.HasPrefix(scope[0], "SESSION"):
			return http.StatusBadRequest, "ExpiredToken"
		case !known:
			return http.StatusForbidden, "InvalidAccessKeyId"
		case r.Header.Get("X-Amz-Security-Token") != session.token:
			return http.StatusBadRequest, "InvalidToken"
		}
		secret = session.secret
	}
	if !hmac.Equal([]byte(said["Signature"]), []byte(s3Signature(r, secret, scope[1:], said["SignedHeaders"]))) {
		return http.StatusForbidden, "SignatureDoesNotMatch"
	}
	return 0, ""
}

func s3Signature(r *http.Request, secret string, scope []string, headers string) string {
	var query []string
	for name, values := range r.URL.Query() {
		for _, value := range values {
			query = append(query, s3Escape(name)+"="+s3Escape(value))
		}
	}
	slices.Sort(query)
	path := make([]string, 0, 4)
	for _, element := range strings.Split(r.URL.Path, "/") {
		path = append(path, s3Escape(element))
	}
	canonical := r.Method + "\n" + cmp.Or(strings.Join(path, "/"), "/") + "\n" + strings.Join(query, "&") + "\n"
	for _, name := range strings.Split(headers, ";") {
		value := strings.Join(r.Header.Values(name), ",")
		if name == "host" {
			value = r.Host
		}
		canonical += name + ":" + strings.Join(strings.Fields(value), " ") + "\n"
	}
	canonical += "\n" + headers + "\n" + r.Header.Get("X-Amz-Content-Sha256")
	sum := sha256.Sum256([]byte(canonical))
	text := "AWS4-HMAC-SHA256\n" + r.Header.Get("X-Amz-Date") + "\n" + strings.Join(scope, "/") + "\n" + hex.EncodeToString(sum[:])
	key := []byte("AWS4" + secret)
	for _, part := range scope {
		key = bucketMAC(key, part)
	}
	return hex.EncodeToString(bucketMAC(key, text))
}

func bucketMAC(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// s3Escape escapes all but unreserved characters.
func s3Escape(text string) string {
	return strings.ReplaceAll(url.QueryEscape(text), "+", "%20")
}

// ldap gives keys for a name and a password.
func (s *BucketServer) ldap(w http.ResponseWriter, r *http.Request) {
	s.count("login")
	if r.ParseForm() != nil || r.Form.Get("Action") != "AssumeRoleWithLDAPIdentity" {
		s.s3Fail(w, http.StatusBadRequest, "InvalidParameterValue")
		return
	}
	w.Header().Set("Content-Type", "application/xml")
	if s.options.Username == "" || r.Form.Get("LDAPUsername") != s.options.Username || r.Form.Get("LDAPPassword") != s.options.Password {
		w.WriteHeader(http.StatusForbidden)
		_, _ = fmt.Fprintf(w, `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>`+
			`<Code>AccessDenied</Code><Message>%s may not log in</Message></Error><RequestId>1</RequestId></ErrorResponse>`, r.Form.Get("LDAPPassword"))
		return
	}
	key, secret, token := s.Session()
	_, _ = fmt.Fprintf(w, `<AssumeRoleWithLDAPIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithLDAPIdentityResult>`+
		`<Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><Expiration>%s</Expiration><SessionToken>%s</SessionToken></Credentials>`+
		`</AssumeRoleWithLDAPIdentityResult></AssumeRoleWithLDAPIdentityResponse>`, key, secret, time.Now().Add(time.Hour).UTC().Format(time.RFC3339), token)
}
