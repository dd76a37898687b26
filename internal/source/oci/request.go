package oci

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/plumb-gitops/plumb/internal/egress"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
)

// Request says what is followed, and how it is reached.
type Request struct {
	// URL is that of the repository, without a tag: oci://host/path.
	URL   string
	Ref   Ref
	Layer Layer
	// Insecure allows HTTP where the registry has no HTTPS. Addresses of this machine
	// and of private networks, where they are written as numbers, are allowed it always.
	// It trusts no certificate; TLS.Insecure does that.
	Insecure bool
	Auth     Auth
	// Login gets the credential of a cloud, where Auth has none. It is asked when the
	// registry wants a credential, and again when it refuses the last one.
	Login func(ctx context.Context) (username, password string, err error)
	// LoginKey says whose login it is: requests with the same key share what Login gave.
	// It must be set with Login.
	LoginKey string
	TLS      egress.TLS
	Proxy    egress.Proxy
	Policy   egress.Policy
	// Verify finds out whether an artifact may be used, and by what: empty where it may be
	// though nobody has signed it. Nil is that all may. The options reach the artifact's
	// repository as the request does. An error of type gitops.Error keeps its kind.
	Verify Verifier
	// VerifyKey stands for the settings of Verify: where it changes, what was fetched is
	// verified again.
	VerifyKey string
}

// Verifier judges an artifact; see Request.Verify.
type Verifier func(ctx context.Context, image name.Digest, o ...remote.Option) (by string, err error)

// Ref chooses an artifact. The first field that is set decides, in the order Digest,
// SemVer, Tag; without any it is the tag latest.
type Ref struct {
	Tag string
	// SemVer is a range; the newest version among the tags that is in it is taken.
	SemVer string
	// SemVerFilter is a regular expression that tags have to match to be looked at.
	SemVerFilter string
	// Digest is algorithm:hex.
	Digest string
}

// Operation is what is done with a layer.
type Operation string

const (
	// Extract shows the files of the layer, a gzipped tar.
	Extract Operation = "extract"
	// Copy hands the layer on as it is, too.
	Copy Operation = "copy"
)

// Layer chooses a layer.
type Layer struct {
	// MediaType is that of the layer, the first of which is taken; where it is empty, the
	// first layer is.
	MediaType string
	// Operation is Extract where it is empty.
	Operation Operation
}

func (l Layer) operation() Operation { return cmp.Or(l.Operation, Extract) }

// Auth are credentials; its zero value is none. They are tried in the order in which
// they stand here.
type Auth struct {
	Username, Password string
	// DockerConfigs are the contents of secrets of the types
	// kubernetes.io/dockerconfigjson and kubernetes.io/dockercfg. Among all that they
	// have for the repository, the most particular come first.
	DockerConfigs [][]byte
}

const defaultTag = "latest"

// mostTag is the longest tag, as the distribution specification says.
const mostTag = 128

// validTag tells whether a text can be a tag.
func validTag(text string) bool {
	if text == "" || len(text) > mostTag || text[0] == '.' || text[0] == '-' {
		return false
	}
	return !strings.ContainsFunc(text, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '_' && r != '.' && r != '-'
	})
}

// String says what is looked for, for messages.
func (r Ref) String() string {
	switch {
	case r.Digest != "":
		return fmt.Sprintf("digest %q", r.Digest)
	case r.SemVer != "" && r.SemVerFilter != "":
		return fmt.Sprintf("a tag in the range %q that matches %q", r.SemVer, r.SemVerFilter)
	case r.SemVer != "":
		return fmt.Sprintf("a tag in the range %q", r.SemVer)
	default:
		return fmt.Sprintf("tag %q", cmp.Or(r.Tag, defaultTag))
	}
}

// check refuses a request that can never work.
func (r Request) check() error {
	stalled := func(reason, format string, args ...any) error {
		return &fault{kind: gitops.Stalled, reason: reason, text: fmt.Sprintf(format, args...)}
	}
	if operation := r.Layer.operation(); operation != Extract && operation != Copy {
		return stalled(ReasonLayer, "operation %q on a layer is not known; use %q or %q", operation, Extract, Copy)
	}
	if r.Login != nil && r.LoginKey == "" {
		return &fault{kind: gitops.Internal, reason: ReasonAuthentication, text: "a login without a key"}
	}
	switch {
	case r.Ref.Digest != "":
		if _, err := v1.NewHash(r.Ref.Digest); err != nil {
			return stalled(ReasonPull, "it is not a digest; write sha256: and 64 hexadecimal digits")
		}
	case r.Ref.SemVer != "":
		if _, err := semver.NewConstraint(r.Ref.SemVer); err != nil {
			return stalled(ReasonRead, "it is not a range of versions: %v", err)
		}
		if _, err := regexp.Compile(r.Ref.SemVerFilter); err != nil {
			return stalled(ReasonRead, "the filter is not a regular expression: %v", err)
		}
	case r.Ref.Tag != "" && !validTag(r.Ref.Tag):
		return stalled(ReasonPull, "it is not a tag; a tag has at most %d letters, digits, \"_\", \".\" and \"-\", and begins with none of the latter two", mostTag)
	}
	return nil
}

const scheme = "oci://"

// repository reads the URL.
func (r Request) repository() (name.Repository, error) {
	text, ok := strings.CutPrefix(r.URL, scheme)
	if !ok {
		return name.Repository{}, wrongURL("it does not begin with \"oci://\"")
	}
	var options []name.Option
	if r.Insecure {
		options = append(options, name.Insecure)
	}
	host, path, _ := strings.Cut(text, "/")
	if strings.ContainsAny(text, "@?#") || host == "" || path == "" {
		return name.Repository{}, wrongURL("write oci://host/path, without user, tag and digest")
	}
	if strings.Contains(path, ":") {
		return name.Repository{}, wrongURL("it has a tag; put it under \"ref\"")
	}
	if slices.ContainsFunc(strings.Split(path, "/"), func(element string) bool { return element == "" || strings.Trim(element, ".") == "" }) {
		return name.Repository{}, wrongURL("its path is not that of a repository")
	}
	repository, err := name.NewRepository(text, options...)
	if err != nil {
		return name.Repository{}, wrongURL("it is not that of a repository; its path is in lower case letters, digits, \"_\", \".\", \"-\" and \"/\"")
	}
	return repository, nil
}

func wrongURL(text string) error {
	return &fault{kind: gitops.Stalled, reason: ReasonURL, text: text}
}

// redacted is the URL for messages: without what may be a secret.
func (r Request) redacted() string {
	text, _, _ := strings.Cut(r.URL, "?")
	text, _, _ = strings.Cut(text, "#")
	if strings.Contains(text, "@") {
		return "a URL that cannot be read"
	}
	if u, err := url.Parse(text); err != nil || u.Opaque != "" {
		return "a URL that cannot be read"
	}
	return egress.Printable(text)
}

// Fetcher binds a request, so that it can be fetched again and again.
func (s *Store) Fetcher(request Request) source.Fetcher { return fetcher{s, request} }

type fetcher struct {
	store   *Store
	request Request
}

// Fetch fetches the request.
func (f fetcher) Fetch(ctx context.Context, known string) (source.Result, error) {
	return f.store.Fetch(ctx, f.request, known)
}

// errNothing is the error of a Last without an earlier Fetch.
func errNothing() error { return errors.New("nothing was fetched before") }
