package bucket

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// lists is a server that has a number of objects, with keys of some length.
type lists struct {
	client
	objects, length int
}

func (l lists) list(_ context.Context, _ string, visit func(object) error) error {
	for i := range l.objects {
		if err := visit(object{key: fmt.Sprintf("%0*d", l.length, i), etag: strings.Repeat("e", 34)}); err != nil {
			return err
		}
	}
	return nil
}

// TestListingsAreBounded: what a listing may hold in memory is enough for as many objects as a
// bucket may have, and not for as many as the protocol allows.
func TestListingsAreBounded(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		of   lists
		want string
	}{
		"objects with keys of usual length": {lists{objects: 100_000, length: 200}, ""},
		"many objects with short keys":      {lists{objects: 240_000, length: 30}, ""},
		"more objects":                      {lists{objects: 250_001, length: 6}, "more than 250000 objects"},
		"objects with the longest keys":     {lists{objects: 100_000, length: 1024}, "more than 33554432 bytes of memory"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRemote(&Store{options: Options{}.withDefaults()}, "", &connection{client: test.of, session: newSession(time.Now, nil, Credential{})})
			listed, err := (&view{remote: r}).list(t.Context(), "")
			switch {
			case test.want == "" && (err != nil || len(listed) != test.of.objects):
				t.Errorf("%d objects of %d are listed, and the error is %v", len(listed), test.of.objects, err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}
