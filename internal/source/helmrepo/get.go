package helmrepo

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// agent is the User-Agent of requests.
const agent = "plumb"

// get asks for a URL, and hands out the answer where its status is one of those.
func (r *remote) get(ctx context.Context, u *url.URL, header http.Header, statuses ...int) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		request.Header[name] = values
	}
	request.Header.Set("User-Agent", agent)
	transport := r.own
	if r.all != nil && !(r.base.Scheme == "https" && u.Scheme != "https") {
		transport = r.all
	}
	if r.auth != (Auth{}) && (transport == r.all || sameServer(r.base, u)) {
		request.SetBasicAuth(r.auth.Username, r.auth.Password)
	}
	response, err := transport.Client().Do(request)
	if err != nil {
		return nil, err
	}
	for _, status := range statuses {
		if response.StatusCode == status {
			return response, nil
		}
	}
	_ = response.Body.Close()
	return nil, &statusError{response.StatusCode}
}

// sameServer tells whether two URLs are of one server, port and scheme included.
func sameServer(a, b *url.URL) bool {
	port := func(u *url.URL) string {
		switch {
		case u.Port() != "":
			return u.Port()
		case u.Scheme == "https":
			return "443"
		default:
			return "80"
		}
	}
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

// limited gives at most so many bytes; where there are more it ends with an error.
type limited struct {
	in   io.Reader
	left int64
	most int64
	what string
}

func newLimited(in io.Reader, most int64, what string) *limited {
	return &limited{in: in, left: most, most: most, what: what}
}

// Read gives bytes.
func (l *limited) Read(p []byte) (int, error) {
	n, err := l.in.Read(p[:min(int64(len(p)), l.left+1)])
	if l.left -= int64(n); l.left < 0 {
		return 0, fmt.Errorf("%s has more than %d bytes, which is the most that is taken", l.what, l.most)
	}
	return n, err
}
