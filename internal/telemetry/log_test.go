package telemetry

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"k8s.io/klog/v2"
)

func TestLogLines(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		level string
		log   func(logr.Logger)
		want  []map[string]any // without ts
	}{
		"a reconciler's line has Flux's keys": {
			log: func(l logr.Logger) {
				l.WithName("setup").WithValues("controller", "kustomization", "Kustomization", klog.KRef("apps", "web"), "namespace", "apps", "name", "web").
					Info("applied", "revision", "main@sha1:1", "count", 3)
			},
			want: []map[string]any{{
				"level": "info", "msg": "applied", "logger": "setup", "controller": "kustomization", "namespace": "apps", "name": "web",
				"Kustomization": map[string]any{"name": "web", "namespace": "apps"}, "revision": "main@sha1:1", "count": float64(3),
			}},
		},
		"an error is a string under error": {
			log:  func(l logr.Logger) { l.Error(errors.New("no route"), "fetch failed") },
			want: []map[string]any{{"level": "error", "msg": "fetch failed", "error": "no route"}},
		},
		"info hides what is more talkative": {
			log: func(l logr.Logger) { l.V(Debug).Info("d"); l.V(Trace).Info("t"); l.Info("i") },
			want: []map[string]any{
				{"level": "info", "msg": "i"},
			},
		},
		"debug shows debug": {
			level: "debug",
			log:   func(l logr.Logger) { l.V(Debug).Info("d"); l.V(Trace).Info("t") },
			want:  []map[string]any{{"level": "debug", "msg": "d"}},
		},
		"trace shows everything": {
			level: "trace",
			log:   func(l logr.Logger) { l.V(Trace).Info("t"); l.V(6).Info("library") },
			want:  []map[string]any{{"level": "trace", "msg": "t"}, {"level": "trace", "msg": "library"}},
		},
		"error shows errors only": {
			level: "error",
			log:   func(l logr.Logger) { l.Info("i"); l.Error(nil, "e") },
			want:  []map[string]any{{"level": "error", "msg": "e"}},
		},
		"a secret is hidden wherever it stands": {
			log: func(l logr.Logger) {
				l.Info("from https://u:p@host/x", "url", "https://u:p@host/y", "error", errors.New("https://u:p@host/z"))
			},
			want: []map[string]any{{"level": "info", "msg": "from https://***@host/x", "url": "https://***@host/y", "error": "https://***@host/z"}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			log, err := NewLogger(&out, LogOptions{Level: tt.level})
			if err != nil {
				t.Fatal(err)
			}
			tt.log(log)
			var got []map[string]any
			for line := range strings.Lines(out.String()) {
				var fields map[string]any
				if err := json.Unmarshal([]byte(line), &fields); err != nil {
					t.Fatalf("line %q: %v", line, err)
				}
				ts, _ := fields["ts"].(string)
				if _, err := time.Parse("2006-01-02T15:04:05.000Z", ts); err != nil {
					t.Errorf("ts: %v", err)
				}
				delete(fields, "ts")
				if fields["error"] == nil {
					delete(fields, "error")
				}
				got = append(got, fields)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("lines differ (-want +got):\n%s", diff)
			}
		})
	}
}

func TestConsoleLine(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log, err := NewLogger(&out, LogOptions{Encoding: "console"})
	if err != nil {
		t.Fatal(err)
	}
	log.Info("applied", "name", "web")
	if !strings.HasSuffix(out.String(), "level=info msg=applied name=web\n") {
		t.Errorf("line is %q", out.String())
	}
}

func TestUnknownLogOptions(t *testing.T) {
	t.Parallel()
	for _, options := range []LogOptions{{Level: "warn"}, {Encoding: "xml"}} {
		if _, err := NewLogger(&bytes.Buffer{}, options); err == nil {
			t.Errorf("%+v is taken", options)
		}
	}
}

func TestRedact(t *testing.T) {
	t.Parallel()
	const key = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk=\n-----END OPENSSH PRIVATE KEY-----"
	tests := map[string]struct{ text, want string }{
		"a password in a URL":                 {"clone https://user:pass@host/repo: denied", "clone https://***@host/repo: denied"},
		"a password with an at sign":          {"https://user:p@ss@host/repo", "https://***@host/repo"},
		"a token as the user":                 {"https://token@host/repo", "https://***@host/repo"},
		"an address after a URL":              {"https://host/a of team@host", "https://host/a of team@host"},
		"the user of SSH":                     {"ssh://git@host/repo", "ssh://git@host/repo"},
		"a password of SSH":                   {"ssh://git:pass@host/repo", "ssh://***@host/repo"},
		"two URLs":                            {"http://a:b@x http://c:d@y", "http://***@x http://***@y"},
		"a bearer token":                      {"Authorization: Bearer abc123def", "Authorization: Bearer ***"},
		"basic credentials":                   {"authorization: basic dXNlcjpwYXNz", "authorization: basic ***"},
		"words about authentication":          {"basic authentication and bearer tokens", "basic authentication and bearer tokens"},
		"a JSON web token":                    {"got eyJhbGciOi.eyJzdWIiOi.c2ln here", "got *** here"},
		"a well-known token":                  {"token ghp_abcdefghij1234 is bad", "token ghp_*** is bad"},
		"an age key":                          {"AGE-SECRET-KEY-1QQQQQQQ", "AGE-SECRET-KEY-***"},
		"a parameter":                         {"https://host/?a=1&access_token=xyz&b=2", "https://host/?a=1&access_token=***&b=2"},
		"a private key":                       {"parse " + key + " failed", "parse *** failed"},
		"a private key in JSON":               {`{"k":"` + strings.ReplaceAll(key, "\n", `\n`) + `","b":1}`, `{"k":"***","b":1}`},
		"a private key that was cut":          {`{"k":"-----BEGIN RSA PRIVATE KEY-----\nabc","b":1}`, `{"k":"***","b":1}`},
		"a certificate is no secret":          {"-----BEGIN CERTIFICATE-----\nabc", "-----BEGIN CERTIFICATE-----\nabc"},
		"a digest and a revision stay":        {"main@sha1:0123456789abcdef sha256:ff", "main@sha1:0123456789abcdef sha256:ff"},
		"an image and an SCP-like URL stay":   {"git@host:org/repo registry/x@sha256:00", "git@host:org/repo registry/x@sha256:00"},
		"a resource in a condition's message": {"Deployment/apps/web: configured", "Deployment/apps/web: configured"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := Redact(tt.text); got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

func FuzzRedact(f *testing.F) {
	f.Add("https://", "user", "password", "host/x")
	f.Fuzz(func(t *testing.T, before, user, password, after string) {
		if password == "" || strings.ContainsAny(password+user, "/@ \t\r\n\f\v\"'") || strings.Contains("https://"+before+after+user, password) || strings.Contains(hidden, password) {
			t.Skip("the password is not one, or stands elsewhere too")
		}
		got := Redact(before + " https://" + user + ":" + password + "@" + after)
		if strings.Contains(got, ":"+password+"@") {
			t.Errorf("the password stays in %q", got)
		}
	})
}
