package testenv

import (
	"crypto/md5"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// BucketProtocol is what a BucketServer speaks.
type BucketProtocol string

const (
	// S3 is Amazon's protocol, with the security token service for LDAP.
	S3 BucketProtocol = "S3"
	// GoogleStorage is the JSON API of Google Cloud Storage, with the login of service
	// accounts.
	GoogleStorage BucketProtocol = "Google"
	// AzureBlob is that of Azure Blob Storage, with the login of service principals.
	AzureBlob BucketProtocol = "Azure"
)

// BucketOptions say how a BucketServer behaves.
type BucketOptions struct {
	// Protocol is S3 where it is empty.
	Protocol BucketProtocol
	// TLS serves https, with a certificate made by BucketServer.CA.
	TLS bool
	// ClientCA asks for a client certificate that it signed, in PEM.
	ClientCA []byte
	// PageSize is how many objects a page of a listing has at most: 1000 by default.
	PageSize int
	// Public asks for no credential.
	Public bool
	// Region is what S3 signatures must be for: us-east-1 by default.
	Region string
	// AccessKey and SecretKey are those of S3; for Azure the name and the key of the
	// storage account, the latter in base64.
	AccessKey, SecretKey string
	// Username and Password are asked for by the security token service; for Azure the
	// client and its secret.
	Username, Password string
	// Certificate is that of the Azure client that has no secret.
	Certificate *x509.Certificate
	// Logins is another server whose logins hold here too.
	Logins *BucketServer
}

// BucketServer is an object store on the loopback interface. It checks the signatures
// and tokens that it is sent. It ends with the test.
type BucketServer struct {
	// CA is the certificate of the server's authority in PEM; empty without TLS.
	CA []byte

	options BucketOptions
	server  *httptest.Server
	key     *rsa.PrivateKey // of the Google service account; nil for others
	account []byte          // the key of the Azure storage account; nil for others

	mu       sync.Mutex // guards all below
	buckets  map[string]map[string]bucketObject
	made     int // counts objects and sessions
	sessions map[string]bucketSession
	requests map[string]int
	around   func(http.Handler) http.Handler
}

// bucketObject is an object.
type bucketObject struct {
	content    string
	generation int
}

// bucketSession is what a login gave out.
type bucketSession struct{ secret, token string }

// NewBucketServer starts an object store.
func NewBucketServer(t testing.TB, o BucketOptions) *BucketServer {
	t.Helper()
	if o.PageSize == 0 {
		o.PageSize = 1000
	}
	if o.Region == "" {
		o.Region = "us-east-1"
	}
	s := &BucketServer{options: o, buckets: map[string]map[string]bucketObject{}, sessions: map[string]bucketSession{}, requests: map[string]int{}}
	protocol := s.s3
	switch o.Protocol {
	case GoogleStorage:
		protocol = s.google
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		check(t, err)
		s.key = key
	case AzureBlob:
		protocol = s.azure
		key, err := base64.StdEncoding.DecodeString(o.SecretKey)
		check(t, err)
		s.account = key
	}
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		around := s.around
		s.mu.Unlock()
		var handler http.Handler = http.HandlerFunc(protocol)
		if around != nil {
			handler = around(handler)
		}
		handler.ServeHTTP(w, r)
	}))
	s.server.Config.ErrorLog = quietLog(t)
	if o.TLS {
		if len(o.ClientCA) > 0 {
			pool := x509.NewCertPool()
			pool.AppendCertsFromPEM(o.ClientCA)
			s.server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
		}
		s.server.StartTLS()
		s.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.server.Certificate().Raw})
	} else {
		s.server.Start()
	}
	t.Cleanup(func() {
		s.server.CloseClientConnections()
		s.server.Close()
	})
	return s
}

// URL is that of the server.
func (s *BucketServer) URL() string { return s.server.URL }

// Address is host and port.
func (s *BucketServer) Address() string {
	_, address, _ := strings.Cut(s.server.URL, "://")
	return address
}

// Around puts a handler in front of all later requests; nil takes it away.
func (s *BucketServer) Around(wrap func(http.Handler) http.Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.around = wrap
}

// ServeHTTP answers a request as the server does, for a proxy.
func (s *BucketServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.server.Config.Handler.ServeHTTP(w, r)
}

// Requests is the number of requests of a kind since the last call for it: "list",
// "get", "login" or "location".
func (s *BucketServer) Requests(kind string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer delete(s.requests, kind)
	return s.requests[kind]
}

func (s *BucketServer) count(kind string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests[kind]++
}

// Fill makes a bucket hold exactly some objects; those that are the same stay.
func (s *BucketServer) Fill(bucket string, objects map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.buckets[bucket]
	s.buckets[bucket] = map[string]bucketObject{}
	for key, content := range objects {
		if old, ok := before[key]; ok && old.content == content {
			s.buckets[bucket][key] = old
		} else {
			s.putLocked(bucket, key, content)
		}
	}
}

// Put makes or replaces an object.
func (s *BucketServer) Put(bucket, key, content string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.buckets[bucket] == nil {
		s.buckets[bucket] = map[string]bucketObject{}
	}
	s.putLocked(bucket, key, content)
}

func (s *BucketServer) putLocked(bucket, key, content string) {
	s.made++
	s.buckets[bucket][key] = bucketObject{content: content, generation: s.made}
}

// Delete removes an object.
func (s *BucketServer) Delete(bucket, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.buckets[bucket], key)
}

// Drop removes a bucket.
func (s *BucketServer) Drop(bucket string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.buckets, bucket)
}

// ETag is the entity tag of an object, as it stands in a listing.
func (s *BucketServer) ETag(bucket, key string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.etag(s.buckets[bucket][key])
}

func (s *BucketServer) etag(o bucketObject) string {
	switch s.options.Protocol {
	case GoogleStorage:
		return fmt.Sprintf("CK%d/EAE=", o.generation)
	case AzureBlob:
		return fmt.Sprintf("0x8D%012X", o.generation)
	default:
		sum := md5.Sum([]byte(o.content))
		return hex.EncodeToString(sum[:])
	}
}

func (o bucketObject) crc() []byte {
	sum := crc32.Checksum([]byte(o.content), crc32.MakeTable(crc32.Castagnoli))
	return []byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}
}

// desk is the server whose logins hold here.
func (s *BucketServer) desk() *BucketServer {
	if s.options.Logins != nil {
		return s.options.Logins
	}
	return s
}

// EndSessions refuses what logins gave out until now.
func (s *BucketServer) EndSessions() {
	s = s.desk()
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.sessions)
}

// session gives out a new login.
func (s *BucketServer) session() (name string, made bucketSession) {
	s = s.desk()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made++
	name = fmt.Sprintf("SESSION%d", s.made)
	made = bucketSession{secret: "secret-of-" + name, token: "token-of-" + name}
	s.sessions[name] = made
	return name, made
}

// Session gives out a login as the server itself does: a key, its secret and a token.
func (s *BucketServer) Session() (key, secret, token string) {
	name, made := s.session()
	return name, made.secret, made.token
}

// known is a login by its key.
func (s *BucketServer) known(key string) (bucketSession, bool) {
	s = s.desk()
	s.mu.Lock()
	defer s.mu.Unlock()
	made, ok := s.sessions[key]
	return made, ok
}

func (s *BucketServer) holds(token string) bool {
	s = s.desk()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, made := range s.sessions {
		if made.token == token {
			return true
		}
	}
	return false
}

// bucketPage is a page of a listing.
type bucketPage struct {
	keys    []string
	objects map[string]bucketObject
	next    string
}

// page lists what follows a key; false where there is no such bucket.
func (s *BucketServer) page(bucket, prefix, after string) (bucketPage, bool) {
	s.count("list")
	s.mu.Lock()
	defer s.mu.Unlock()
	objects, ok := s.buckets[bucket]
	page := bucketPage{objects: map[string]bucketObject{}}
	for key := range objects {
		if strings.HasPrefix(key, prefix) && key > after {
			page.keys = append(page.keys, key)
		}
	}
	slices.Sort(page.keys)
	if len(page.keys) > s.options.PageSize {
		page.keys = page.keys[:s.options.PageSize]
		page.next = page.keys[len(page.keys)-1]
	}
	for _, key := range page.keys {
		page.objects[key] = objects[key]
	}
	return page, ok
}

func (s *BucketServer) object(bucket, key string) (bucketObject, bool) {
	s.count("get")
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.buckets[bucket][key]
	return o, ok
}

// bucketTime is when all objects were made.
func bucketTime() time.Time { return time.Unix(1_700_000_000, 0).UTC() }
