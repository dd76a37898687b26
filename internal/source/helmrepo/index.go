package helmrepo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"strings"
	"time"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
)

// Index is the index of a repository.
type Index struct {
	// Revision is the digest of the index as the server has it: sha256:hex.
	Revision string
	// Unchanged is set when Revision is the one that the caller knew.
	Unchanged bool
	// Warning says in one sentence what was left out; empty where it was nothing.
	Warning string
	// Open gives the index as it is served: in JSON, without what was left out. It can be
	// called until Release.
	Open func() (io.ReadCloser, error)
	// Release gives the index back; it may be called more than once.
	Release func()
}

// Index brings the index of a repository up to date. Known is the revision that the caller
// has, empty where it has none. What source.Fetcher promises of Fetch holds for it too.
func (s *Store) Index(ctx context.Context, repository Repository, known string) (Index, error) {
	r, err := s.remote(ctx, repository)
	if err != nil {
		return Index{}, err
	}
	if err := r.refresh(ctx); err != nil {
		return Index{}, err
	}
	index, ok, err := r.show(ctx, known)
	if err == nil && !ok {
		err = fault(gitops.Transient, ReasonFailed, errors.New("the repository is not followed any more"))
	}
	return index, err
}

// LastIndex gives the index that was fetched last, from the disk and without asking the
// server. It is an error where there is none.
func (s *Store) LastIndex(ctx context.Context, repository Repository) (Index, error) {
	r, err := s.remote(ctx, repository)
	if err != nil {
		return Index{}, err
	}
	index, ok, err := r.show(ctx, "")
	if err == nil && !ok {
		err = fault(gitops.Transient, ReasonFailed, fmt.Errorf("no index of %q was fetched before", shown(r.base)))
	}
	return index, err
}

func (r *remote) show(ctx context.Context, known string) (Index, bool, error) {
	index, release, err := r.index()
	if err != nil {
		return Index{}, false, r.failure(ctx, ReasonFailed, err)
	}
	if index == nil {
		return Index{}, false, nil
	}
	r.store.folder.Ask(ctx, r.key, indexBook, r.sizeOf(index.file()))
	return Index{
		Revision: index.Revision, Unchanged: index.Revision == known,
		Warning: index.Warning, Release: release,
		Open: func() (io.ReadCloser, error) {
			file, err := r.openFile(index.file())
			if err != nil {
				return nil, disk(err)
			}
			content, err := openServed(file)
			if errors.Is(err, errDamaged) {
				r.dropIndex(index.Revision)
			}
			return content, err
		},
	}, true, nil
}

// refresh brings the index up to date, for all who ask at this moment.
func (r *remote) refresh(ctx context.Context) error {
	if r.own == nil {
		return fault(gitops.Stalled, ReasonURL, fmt.Errorf("%q is a registry, which has no index", shown(r.base)))
	}
	err := r.polls.ask(ctx, r.download)
	if err == nil {
		return nil
	}
	return within(fmt.Sprintf("fetch index of %q", shown(r.base)), r.failure(ctx, ReasonFailed, err))
}

// download asks the server for the index and takes it in where it has changed.
func (r *remote) download(ctx context.Context) error {
	last, release, err := r.index()
	if err != nil {
		return err
	}
	header := http.Header{}
	if last != nil {
		defer release()
		if last.ETag != "" {
			header.Set("If-None-Match", last.ETag)
		}
		if last.LastModified != "" {
			header.Set("If-Modified-Since", last.LastModified)
		}
	}
	at := *r.base
	at.Path = path.Join(at.Path, "index.yaml")
	if at.RawPath != "" {
		at.RawPath = path.Join(at.RawPath, "index.yaml")
	}
	statuses := []int{http.StatusOK}
	if len(header) > 0 {
		statuses = append(statuses, http.StatusNotModified)
	}
	response, err := r.get(ctx, &at, header, statuses...)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusNotModified {
		return nil
	}
	return r.takeIndex(ctx, response, last, validators(response))
}

// validators are what a server gives to ask later whether the index has changed. A time of
// the second in which the answer was made is none: the index may change once more in it.
func validators(response *http.Response) (found indexState) {
	const most = 1024
	if tag := response.Header.Get("Etag"); len(tag) <= most {
		found.ETag = tag
	}
	modified, err := http.ParseTime(response.Header.Get("Last-Modified"))
	date, errDate := http.ParseTime(response.Header.Get("Date"))
	if err == nil && errDate == nil && date.Sub(modified) > time.Second {
		found.LastModified = response.Header.Get("Last-Modified")
	}
	return found
}

// takeIndex stores an index that comes from the server.
func (r *remote) takeIndex(ctx context.Context, response *http.Response, last *indexState, next indexState) error {
	most := r.store.options.IndexBytes
	if response.ContentLength > most {
		return fmt.Errorf("the index has %d bytes, at most %d are taken", response.ContentLength, most)
	}
	raw, _, done, err := r.create()
	if err != nil {
		return err
	}
	defer done()
	sum := sha256.New()
	size, err := io.Copy(io.MultiWriter(raw, sum), newLimited(artifact.Counted(ctx, response.Body), most, "the index"))
	if err != nil {
		return err
	}
	next.Revision = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	if last != nil && last.Revision == next.Revision {
		if last.ETag == next.ETag && last.LastModified == next.LastModified {
			return nil
		}
		next.Warning = last.Warning
		return r.setIndex("", next)
	}
	out, name, done, err := r.create()
	if err != nil {
		return err
	}
	defer done()
	if next.Warning, err = r.converted(ctx, raw, size, out); err != nil {
		return r.indexation(ctx, err)
	}
	return r.setIndex(name, next)
}

// indexation is the failure to read an index that came whole.
func (r *remote) indexation(ctx context.Context, err error) error {
	if ctx.Err() != nil || isDisk(err) {
		return err
	}
	return fault(gitops.Invalid, ReasonIndexation, err)
}

// find looks for a version of a chart in the index. Where there is no index, or it is not
// to be the one that was fetched last, the server is asked.
func (r *remote) find(ctx context.Context, name string, want wanted, cached bool) (candidate, error) {
	for again := false; ; again = true {
		if !cached || again {
			if err := r.refresh(ctx); err != nil {
				return candidate{}, err
			}
		}
		found, retry, err := r.lookup(ctx, name, want)
		if !retry || again {
			return found, err
		}
	}
}

// lookup looks into the index that is there. It is to be tried again, with a fresh index,
// where there is none or where it is damaged.
func (r *remote) lookup(ctx context.Context, name string, want wanted) (found candidate, retry bool, err error) {
	index, release, err := r.index()
	if err != nil {
		return candidate{}, false, r.failure(ctx, ReasonPull, err)
	}
	if index == nil {
		return candidate{}, true, fault(gitops.Transient, ReasonPull, errors.New("the repository has no index any more"))
	}
	defer release()
	file, err := r.openFile(index.file())
	if err != nil {
		return candidate{}, false, r.failure(ctx, ReasonPull, err)
	}
	defer file.Close()
	choice := chosen{wanted: want}
	known, err := candidates(file, name, choice.see)
	switch {
	case errors.Is(err, errDamaged):
		r.dropIndex(index.Revision)
		return candidate{}, true, fault(gitops.Transient, ReasonPull, err)
	case err != nil:
		return candidate{}, false, r.failure(ctx, ReasonPull, err)
	case !known:
		return candidate{}, false, fault(gitops.Invalid, ReasonReference, fmt.Errorf("the repository %q has no chart %q", shown(r.base), name))
	case !choice.found:
		return candidate{}, false, fault(gitops.Invalid, ReasonReference, fmt.Errorf("the repository %q has no version of chart %q in the range %q", shown(r.base), name, want.String()))
	}
	return choice.best, false, nil
}

// String is the range for messages.
func (w wanted) String() string {
	if w.text == "" {
		return "*"
	}
	return w.text
}

// isDisk tells whether an error is of the data folder.
func isDisk(err error) bool {
	var file *os.PathError
	var link *os.LinkError
	return errors.As(err, &file) || errors.As(err, &link)
}

// disk takes the names of our own files, which differ from time to time, out of an error.
func disk(err error) error {
	var file *os.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &file):
		err = file.Err
	case errors.As(err, &link):
		err = link.Err
	default:
		return err
	}
	return fmt.Errorf("data folder: %s", strings.TrimSpace(err.Error()))
}
