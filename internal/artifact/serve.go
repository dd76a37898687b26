package artifact

import (
	"net/http"
	"path"
	"strings"
)

// Handler serves the artifacts that are advertised, by their paths, for GET and
// HEAD, in parts too. There are no listings; "/" answers that the server is there.
func (s *Store) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		name := strings.TrimPrefix(r.URL.Path, "/")
		if name == "" {
			w.WriteHeader(http.StatusOK)
			return
		}
		found, ok := s.advertised(name)
		if !ok {
			http.NotFound(w, r)
			return
		}
		file, err := s.root.Open(found.path)
		if err != nil {
			http.NotFound(w, r)
			return
		}
		defer file.Close()
		w.Header().Set("Content-Type", contentType(name))
		w.Header().Set("Etag", `"`+found.artifact.Digest+`"`)
		http.ServeContent(w, r, "", found.artifact.Time, file)
	})
}

func (s *Store) advertised(name string) (record, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	src, ok := s.sources[path.Dir(name)]
	if !ok {
		return record{}, false
	}
	for _, r := range src.files {
		if r.path == name {
			return r, true
		}
	}
	return record{}, false
}

// contentType is that of a file by its name: an index of charts, or a packed tar.
func contentType(name string) string {
	if path.Ext(name) == ".yaml" {
		return "application/yaml"
	}
	return "application/gzip"
}
