package artifact

import (
	"net/http"
	"path"
	"strings"
)

// Handler serves the artifacts that are advertised, by their paths and the newest of a
// source by its lasting name too, for GET and HEAD, in parts too; but none that was found to
// be damaged. There are no listings; "/" answers that the server is there.
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
	if n := len(src.files); n > 0 && path.Base(name) == lastingName(src.files[n-1].path) {
		return src.files[n-1], src.files[n-1].damage == nil
	}
	for _, r := range src.files {
		if r.path == name {
			return r, r.damage == nil
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

// LatestArchive and LatestIndex are the lasting names of the newest file of a source: of a
// packed tar, and of an index of charts.
const (
	LatestArchive = "latest.tar.gz"
	LatestIndex   = "index.yaml"
)

func lastingName(file string) string {
	if path.Ext(file) == ".yaml" {
		return LatestIndex
	}
	return LatestArchive
}
