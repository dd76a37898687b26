package bucket

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/paging"
	"github.com/plumb-gitops/plumb/internal/source"
)

func FuzzKeys(f *testing.F) {
	for _, seed := range []string{
		"a|b/c|b/d", "../x", "a//b", "x|x/y", "x/|x/y", "a|a", "/abs", "a/./b", "..", `a\b`, "a\x00", "\xff", strings.Repeat("d/", 101) + "f",
		strings.Repeat("n", 1025), "b/a|b.a|b", ".sourceignore|.sourceignore/x", "ünï/x|ünï", "CON|con|Con/x",
	} {
		f.Add(seed, int64(1))
		f.Add(seed, int64(0))
	}
	f.Fuzz(func(t *testing.T, text string, size int64) {
		var listed []object
		for i, key := range strings.Split(text, "|") {
			listed = append(listed, object{key: key, etag: "e", size: size * int64(i%2)})
		}
		o := Options{}.withDefaults()
		chosen, err := o.choose(listed, source.Patterns{})
		if err != nil {
			if code := codeOf(err); code != codeRefused && code != codeChanged {
				t.Fatalf("code %v of %q", code, err)
			}
			return
		}
		var entries []entry
		for _, c := range chosen {
			entries = append(entries, entry{key: c.key, size: c.size})
		}
		all, err := newTable(entries)
		if err != nil {
			t.Fatalf("keys that were chosen make no tree: %v", err)
		}
		made := &tree{paged: paging.New(1, func(t *table) int64 { return t.cost }).Keep(all, nil)}
		files := 0
		if err := fs.WalkDir(made, ".", func(name string, d fs.DirEntry, err error) error {
			if !fs.ValidPath(name) || strings.ContainsAny(name, "\\\x00\n") {
				t.Errorf("path %q", name)
			}
			if err == nil && !d.IsDir() {
				files++
			}
			return err
		}); err != nil || files != len(entries) {
			t.Errorf("%d files of %d, %v", files, len(entries), err)
		}
	})
}

func FuzzState(f *testing.F) {
	zeros := strings.Repeat("0", 64)
	for _, seed := range []string{
		"", "{}", `{"version":1}`, `{"version":1,"objects":[{"k":"a","e":"x","s":"` + zeros + `","n":1}]}`,
		`{"version":1,"objects":[{"k":"b","s":"` + zeros + `"},{"k":"a","s":"` + zeros + `"}]}`, `{"version":1,"objects":[{"k":"../a","s":"` + zeros + `"}]}`,
		`{"version":1,"ignore":{"k":".sourceignore","s":"00"}}`, `{"version":1,"objects":null,"ignore":null}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var entries []entry
		last := ""
		s, err := scan(bytes.NewReader(text), func(e entry) error {
			if !fs.ValidPath(e.key) || e.key <= last {
				t.Errorf("entry %+v after %q", e, last)
			}
			last = e.key
			entries = append(entries, e)
			return nil
		})
		if err != nil {
			return
		}
		var written bytes.Buffer
		if err := writeState(&written, s.revision, entries, s.ignore); err != nil {
			t.Fatal(err)
		}
		n := 0
		again, err := scan(&written, func(e entry) error {
			if e != entries[n] {
				t.Errorf("entry %+v, was %+v", e, entries[n])
			}
			n++
			return nil
		})
		if err != nil || again.revision != s.revision || n != len(entries) {
			t.Errorf("written again: %d entries of %d, %+v, %v", n, len(entries), again, err)
		}
	})
}

// answering is a wire that always gets the same answer.
func answering(status int, body []byte) *wire {
	return &wire{client: &http.Client{Transport: always(func(r *http.Request) *http.Response {
		return &http.Response{
			StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
			Header: http.Header{"Etag": {`"e"`}, "Last-Modified": {"Mon, 02 Jan 2006 15:04:05 GMT"}, "Content-Type": {"application/xml"}},
			Body:   io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
		}
	})}}
}

type always func(*http.Request) *http.Response

func (a always) RoundTrip(r *http.Request) (*http.Response, error) { return a(r), nil }

// statuses are those that are not sent again, so that fuzzing does not wait.
func status(n uint8) int {
	return []int{200, 200, 200, 400, 401, 403, 404, 412, 301}[int(n)%9]
}

// fuzzListing hands answers to a client, and checks what it makes of them.
func fuzzListing(f *testing.F, provider Provider, seeds ...string) {
	f.Helper()
	for i, seed := range seeds {
		f.Add([]byte(seed), uint8(i))
		f.Add([]byte(seed), uint8(0))
	}
	f.Fuzz(func(t *testing.T, body []byte, n uint8) {
		u, w, l := &url.URL{Scheme: "http", Host: "127.0.0.1:1", Path: "/acct"}, answering(status(n), body), limits{pages: 3, object: 1 << 20}
		s := newSession(time.Now, nil, Credential{})
		var c client
		var err error
		request := Request{Provider: provider, Bucket: "bucket", Region: "r", Insecure: true}
		switch provider {
		case GCP:
			c = newGCS(request, u, w, s, l)
		case Azure:
			c, err = newAzure(request, u, w, s, l)
		default:
			u.Path = ""
			c, err = newS3(request, u, w, s, l)
		}
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		listed := 0
		err = c.list(ctx, "", func(o object) error {
			listed++
			_ = checkKey(o.key)
			_ = checkTag(o)
			return nil
		})
		if ctx.Err() != nil {
			t.Fatal("it does not end")
		}
		if err == nil && status(n) != http.StatusOK {
			t.Errorf("status %d is a listing of %d objects", status(n), listed)
		}
		checkWords(t, err, request)
		in, err := c.open(ctx, object{key: "k", etag: "e", size: 3, generation: "1"})
		if err == nil {
			_, err = io.Copy(io.Discard, in)
			_ = in.Close()
		}
		checkWords(t, err, request)
	})
}

// checkWords checks that an error reads like one.
func checkWords(t *testing.T, err error, request Request) {
	t.Helper()
	if err == nil {
		return
	}
	said := failure(t.Context(), request, err)
	var e *gitops.Error
	if !errors.As(said, &e) || e.Kind == "" || e.Reason == "" || len(said.Error()) > 1000 || strings.ContainsFunc(said.Error(), func(r rune) bool { return r < ' ' }) {
		t.Errorf("error %q", said)
	}
}

func FuzzS3Listing(f *testing.F) {
	fuzzListing(f, Generic,
		`<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><EncodingType>url</EncodingType><Contents><Key>a%2Fb</Key><ETag>&quot;e&quot;</ETag><Size>1</Size></Contents></ListBucketResult>`,
		`<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken></ListBucketResult>`,
		`<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>`,
		`<ListBucketResult><EncodingType>url</EncodingType><Contents><Key>%zz</Key><Size>-1</Size></Contents></ListBucketResult>`,
		`<ListBucketResult><Contents><Key>a</Key><Size>99999999999999999999</Size></Contents></ListBucketResult>`,
		`<Error><Code>AccessDenied</Code><Message>no</Message></Error>`, `<Error><Code>PermanentRedirect</Code><Region>eu&#10;</Region></Error>`,
		`<LocationConstraint>EU</LocationConstraint>`, "", "<", `<html></html>`, `<ListBucketResult><!DOCTYPE x [<!ENTITY a "&a;">]>`,
	)
}

func FuzzGoogleListing(f *testing.F) {
	fuzzListing(f, GCP,
		`{"kind":"storage#objects","items":[{"name":"a","etag":"CK=","size":"1","generation":"2","crc32c":"AAAAAA=="}]}`,
		`{"kind":"storage#objects","nextPageToken":"x"}`, `{"kind":"storage#objects","items":[{"name":"a","size":"-1"}]}`, `{"kind":"storage#objects","items":[null]}`,
		`{"error":{"code":403,"errors":[{"reason":"forbidden"}]}}`, `{"error":{"errors":[null]}}`, `{}`, "", "[", "null",
	)
}

func FuzzAzureListing(f *testing.F) {
	fuzzListing(f, Azure,
		`<EnumerationResults><Blobs><Blob><Name>a</Name><Properties><Etag>0x8D</Etag><Content-Length>1</Content-Length></Properties></Blob></Blobs><NextMarker/></EnumerationResults>`,
		`<EnumerationResults><Blobs><Blob><Name Encoded="true">a%00</Name></Blob></Blobs></EnumerationResults>`, `<EnumerationResults><Blobs><Blob/></Blobs></EnumerationResults>`,
		`<EnumerationResults><NextMarker>x</NextMarker></EnumerationResults>`, `<EnumerationResults/>`, `<Error><Code>ContainerNotFound</Code></Error>`, "", "\xef\xbb\xbf",
	)
}

// FuzzLogins hands answers to all logins that send no more than a form.
func FuzzLogins(f *testing.F) {
	for i, seed := range []string{
		`<AssumeRoleWithLDAPIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithLDAPIdentityResult><Credentials><AccessKeyId>a</AccessKeyId><SecretAccessKey>b</SecretAccessKey><Expiration>2030-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithLDAPIdentityResult></AssumeRoleWithLDAPIdentityResponse>`,
		`<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Code>AccessDenied</Code></Error></ErrorResponse>`,
		`{"access_token":"t","expires_in":3600,"token_type":"Bearer"}`, `{"error":"invalid_grant"}`, `{"expires_in":-1e99}`, "", "null", "[]",
	} {
		f.Add([]byte(seed), uint8(i))
		f.Add([]byte(seed), uint8(0))
	}
	key := []byte(`{"type":"authorized_user","client_id":"a","client_secret":"b","refresh_token":"c","token_uri":"http://127.0.0.1:1/token"}`)
	f.Fuzz(func(t *testing.T, body []byte, n uint8) {
		w := answering(status(n), body)
		google, err := googleLogin(key, w, egress.Policy{})
		if err != nil {
			t.Fatal(err)
		}
		for _, login := range []func(context.Context) (Credential, error){google, ldapLogin(STS{Endpoint: "http://127.0.0.1:1"}, w)} {
			credential, err := login(t.Context())
			checkWords(t, err, Request{Bucket: "bucket", Endpoint: "h"})
			if err == nil && credential.BearerToken == "" && credential.AccessKey == "" {
				t.Error("a login that gives nothing")
			}
		}
	})
}

func FuzzServiceAccount(f *testing.F) {
	for _, seed := range []string{
		"", "{}", "null", "[]", `{"type":"service_account"}`, `{"type":"service_account","private_key":"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n","token_uri":"http://169.254.169.254/"}`,
		`{"type":"authorized_user","token_uri":":"}`, `{"type":"external_account","credential_source":{"file":"/etc/passwd"}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, key []byte) {
		w := answering(http.StatusUnauthorized, []byte(`{"error":"invalid_grant"}`))
		login, err := googleLogin(key, w, egress.Policy{})
		if err == nil {
			_, err = login(t.Context())
		}
		checkWords(t, err, Request{Provider: GCP, Bucket: "bucket"})
	})
}

func FuzzSharedAccess(f *testing.F) {
	for _, seed := range []string{"", "?sv=1&sig=a%2Bb", "sig=%", ";", "a=1&a=2", "&&&"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, key string) {
		query, err := signature(key, url.Values{"own": {"1"}})
		checkWords(t, err, Request{Provider: Azure, Bucket: "bucket", Endpoint: "https://acct.blob.example.com"})
		if err == nil && !strings.Contains(query, "own=") {
			t.Errorf("query %q lost what the endpoint has", query)
		}
	})
}
