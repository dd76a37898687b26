package helmrepo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"sync"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
)

// ChartRequest says which chart of a repository is followed, and what is done to it.
type ChartRequest struct {
	Repository Repository
	// Name is the chart's; in a registry it may have folders before it.
	Name string
	// Version is a range of versions, of which the newest is taken, or the name of one.
	// Empty means the newest stable one.
	Version string
	// ValuesFiles are files of the chart that are merged, in this order, into what replaces
	// its values.yaml. Empty, or only values.yaml, leaves the chart as it is.
	ValuesFiles []string
	// IgnoreMissingValuesFiles leaves out files that the chart does not have.
	IgnoreMissingValuesFiles bool
	// Generation is that of the owner's specification. It is the build metadata of the
	// version where there are ValuesFiles.
	Generation int64
	// Cached takes the index that was fetched last, by whoever follows the repository. The
	// server is asked only where there is none.
	Cached bool
}

// Chart is a chart that was got or packaged. Its revision is its version, with build
// metadata where it was changed. Files stand below a folder of its name.
type Chart struct {
	source.Result
	// Name and Version are those in its Chart.yaml. Version is the Revision too.
	Name, Version string
	// Digest and Size are those of the packed chart.
	Digest string
	Size   int64
	// ValuesFiles are those that were merged.
	ValuesFiles []string
	// Dependencies is how many were added that the chart's source did not have.
	Dependencies int
	// Packaged is set for a chart that was packaged here, and not for one as it came.
	Packaged bool
}

// book names what a request follows.
func (c ChartRequest) book() string {
	return "chart " + digestOf(c.Name, c.Version, strconv.FormatBool(c.IgnoreMissingValuesFiles), digestOf(mergedFiles(c.ValuesFiles)...))
}

// digestOf is a name for parts.
func digestOf(parts ...string) string {
	sum := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(sum, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(sum.Sum(nil)[:16])
}

// String says what is looked for, for messages.
func (c ChartRequest) String() string {
	if c.Version == "" {
		return fmt.Sprintf("chart %q", clipped(c.Name))
	}
	return fmt.Sprintf("chart %q with version %q", clipped(c.Name), clipped(c.Version))
}

// check refuses what the owner's specification has wrong.
func (c ChartRequest) check() (wanted, error) {
	if !chartName(c.Name) {
		return wanted{}, fault(gitops.Stalled, ReasonReference, fmt.Errorf(
			"%q is no name for a chart; it has lower case letters, digits, dashes, dots and slashes", clipped(c.Name)))
	}
	want, err := parseWanted(c.Version)
	if err != nil {
		return wanted{}, fault(gitops.Stalled, ReasonReference, err)
	}
	if err := checkValuesFiles(c.ValuesFiles); err != nil {
		return wanted{}, fault(gitops.Stalled, ReasonValues, err)
	}
	return want, nil
}

// chartName tells whether a text can be the name of a chart in Flux: lower case letters,
// digits and dashes, between them single dots and slashes.
func chartName(name string) bool {
	if len(name) > mostNames {
		return false
	}
	after := byte('/')
	for i := range len(name) {
		c := name[i]
		switch {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-':
		case (c == '.' || c == '/') && after != '.' && after != '/':
		default:
			return false
		}
		after = c
	}
	return after != '/'
}

// metadata is the build metadata for the version of a chart.
func (c ChartRequest) metadata() string {
	if len(mergedFiles(c.ValuesFiles)) == 0 {
		return ""
	}
	return strconv.FormatInt(c.Generation, 10)
}

// Fetcher binds a request, so that it can be fetched again and again.
func (s *Store) Fetcher(request ChartRequest) source.Fetcher { return fetcher{s, request} }

type fetcher struct {
	store   *Store
	request ChartRequest
}

// Fetch fetches the request.
func (f fetcher) Fetch(ctx context.Context, known string) (source.Result, error) {
	chart, err := f.store.Chart(ctx, f.request, known)
	return chart.Result, err
}

// Chart finds the version of a chart that a request stands for, and gets it. Known is the
// revision that the caller has. As in Flux, a chart of that version is not got again, also
// where the repository has replaced it. See source.Fetcher for what else it promises.
func (s *Store) Chart(ctx context.Context, request ChartRequest, known string) (Chart, error) {
	want, err := request.check()
	if err != nil {
		return Chart{}, err
	}
	r, err := s.remote(ctx, request.Repository)
	if err != nil {
		return Chart{}, err
	}
	result, err := s.chart(ctx, r, request, want, known)
	if err != nil {
		return Chart{}, within(fmt.Sprintf("%s of %q", request, shown(r.base)), r.failure(ctx, ReasonPull, err))
	}
	return result, nil
}

func (s *Store) chart(ctx context.Context, r *remote, request ChartRequest, want wanted, known string) (Chart, error) {
	found, err := r.choose(ctx, request, want)
	if err != nil {
		return Chart{}, err
	}
	result, err := s.chosen(ctx, r, request, found, known)
	if err == nil && found.verified != "" {
		result.Verified = "verified signature of version " + result.Version
	}
	return result, err
}

// chosen gives the chart of a version: the one that is there, or one that is got now.
func (s *Store) chosen(ctx context.Context, r *remote, request ChartRequest, found release, known string) (_ Chart, err error) {
	state := chartState{Name: path.Base(request.Name), Origin: found.digest, Packaged: request.metadata() != ""}
	if state.Version, err = withMetadata(found.version, request.metadata()); err != nil {
		return Chart{}, fault(gitops.Stalled, ReasonMetadata, err)
	}
	if err := checkNames(state.Name, state.Version); err != nil {
		return Chart{}, fault(gitops.Invalid, ReasonReference, err)
	}
	if kept, ok, err := r.keep(ctx, request.book(), state, known); err != nil || ok {
		return kept, err
	}
	leave, err := r.turns.take(ctx, digestOf(request.Name, state.Version, state.Origin))
	if err != nil {
		return Chart{}, err
	}
	defer leave()
	if kept, ok, err := r.keep(ctx, request.book(), state, known); err != nil || ok {
		return kept, err
	}
	if file, release, ok := r.same(state.Name, state.Version, state.Origin); ok && !state.Packaged {
		defer release()
		return r.enter(ctx, request.book(), "", file, known)
	}
	return s.bring(ctx, r, request, found, state, known)
}

// keep gives the chart that is there already, where it is the one that was chosen.
func (s *shelf) keep(ctx context.Context, book string, chosen chartState, known string) (Chart, bool, error) {
	c, release, ok, err := s.chart(book)
	if err != nil || !ok {
		return Chart{}, false, err
	}
	if c.Name != chosen.Name || c.Version != chosen.Version || known != c.Version && (c.Origin == "" || c.Origin != chosen.Origin) {
		release()
		return Chart{}, false, nil
	}
	s.store.folder.Ask(ctx, s.key, book, c.Size)
	shown, err := s.present(ctx, c, release, known)
	return shown, err == nil, err
}

// bring gets a chart, checks it, changes it where that is asked for, and stores it.
func (s *Store) bring(ctx context.Context, r *remote, request ChartRequest, found release, state chartState, known string) (_ Chart, err error) {
	file, name, done, err := r.create()
	if err != nil {
		return Chart{}, err
	}
	defer done()
	ctx, lost := s.folder.Bring(ctx, r.key)
	defer func() {
		if err != nil {
			lost()
		}
	}()
	sum := sha256.New()
	if err := r.receive(ctx, request, found, io.MultiWriter(file, sum)); err != nil {
		return Chart{}, err
	}
	got := hex.EncodeToString(sum.Sum(nil))
	if want := indexDigest(found.digest); request.Repository.Registry == nil && want != "" && want != got {
		return Chart{}, fault(gitops.Transient, ReasonPull, fmt.Errorf(
			"what the server has is not what the index says: its digest is %s instead of %s; write the index again", got, want))
	}
	if err := s.checkChart(s.budget(ctx), file, state.Name, found.version); err != nil {
		return Chart{}, s.unusable(ctx, ReasonPull, err)
	}
	if !state.Packaged {
		state.Digest = "sha256:" + got
		if state.Size, err = file.Seek(0, io.SeekEnd); err != nil {
			return Chart{}, err
		}
		return r.enter(ctx, request.book(), name, state, known)
	}
	return s.repack(ctx, r, request, file, state, known)
}

// receive writes the packed chart, at most as much of it as is taken.
func (r *remote) receive(ctx context.Context, request ChartRequest, found release, to io.Writer) error {
	in, err := r.pull(ctx, request, found)
	if err != nil {
		return err
	}
	defer in.Close()
	_, err = io.Copy(to, newLimited(source.Counted(ctx, in), r.store.options.ChartBytes, "the packed chart"))
	return err
}

// repack puts other values into a chart that was got.
func (s *Store) repack(ctx context.Context, r *remote, request ChartRequest, packed io.ReadSeeker, state chartState, known string) (Chart, error) {
	var made packedChart
	err := s.alone(ctx, &r.turns.line, func(ctx context.Context) (err error) {
		made, err = s.repacked(ctx, r, request, packed, state)
		return err
	})
	if err != nil {
		return Chart{}, err
	}
	defer made.done()
	return r.enter(ctx, request.book(), made.file, made.state, known)
}

func (s *Store) repacked(ctx context.Context, r *remote, request ChartRequest, packed io.ReadSeeker, state chartState) (packedChart, error) {
	if _, err := packed.Seek(0, io.SeekStart); err != nil {
		return packedChart{}, err
	}
	budget := s.budget(ctx)
	files, err := readArchive(packed, budget)
	if err != nil {
		return packedChart{}, s.unusable(ctx, ReasonPackage, err)
	}
	loaded, err := loadFiles(budget, files)
	if err != nil {
		return packedChart{}, s.unusable(ctx, ReasonPackage, err)
	}
	values, merged, err := mergeValues(chartFiles(budget, loaded), request.ValuesFiles, request.IgnoreMissingValuesFiles)
	if err != nil {
		return packedChart{}, s.unusable(ctx, ReasonValues, err)
	}
	if err := setValues(loaded, values); err != nil {
		return packedChart{}, fault(gitops.Invalid, ReasonValues, err)
	}
	loaded.Metadata.Version, state.ValuesFiles = state.Version, merged
	return s.pack(ctx, r.shelf, loaded, state)
}

// unusable is the failure to read a chart that came whole, unless it is the reading that
// failed.
func (s *Store) unusable(ctx context.Context, reason string, err error) error {
	var done *gitops.Error
	if ctx.Err() != nil || isDisk(err) || errors.As(err, &done) {
		return err
	}
	return fault(gitops.Invalid, reason, err)
}

// enter makes a chart the one that is followed, and shows it.
func (s *shelf) enter(ctx context.Context, book, file string, state chartState, known string) (Chart, error) {
	release, err := s.setChart(book, file, state)
	if err != nil {
		return Chart{}, err
	}
	s.store.folder.Ask(ctx, s.key, book, state.Size)
	return s.present(ctx, state, release, known)
}

// present shows a chart that is held.
func (s *shelf) present(ctx context.Context, state chartState, release func(), known string) (Chart, error) {
	open := s.packed(state)
	unpacked, err := s.store.unpacked.Load(ctx, artifact.Packed{
		Digest: state.Digest, Scope: s.key, Open: func(context.Context) (io.ReadCloser, error) { return open() },
	})
	if err != nil {
		release()
		if ctx.Err() != nil {
			return Chart{}, err
		}
		s.forgetDamaged(state)
		return Chart{}, fault(gitops.Transient, ReasonPull, fmt.Errorf("unpack chart: %w", disk(err)))
	}
	return Chart{
		Result: source.Result{
			Revision: state.Version, Unchanged: known != "" && known == state.Version,
			Files:   unpacked.Files,
			Packed:  open,
			Release: sync.OnceFunc(func() { unpacked.Release(); release() }),
		},
		Name: state.Name, Version: state.Version, Digest: state.Digest, Size: state.Size,
		ValuesFiles: state.ValuesFiles, Dependencies: state.Dependencies, Packaged: state.Packaged,
	}, nil
}

// LastChart gives the chart that a request brought last, from the disk and without asking
// anybody. It is an error where there is none.
func (s *Store) LastChart(ctx context.Context, request ChartRequest) (Chart, error) {
	r, err := s.remote(ctx, request.Repository)
	if err != nil {
		return Chart{}, err
	}
	return r.last(ctx, request.book(), request)
}

// last shows what is there for a request.
func (s *shelf) last(ctx context.Context, book string, request fmt.Stringer) (Chart, error) {
	c, release, ok, err := s.chart(book)
	if err == nil && !ok {
		err = errors.New("it was not fetched before")
	}
	if err != nil {
		return Chart{}, fault(gitops.Transient, ReasonPull, fmt.Errorf("%s: %w", request, disk(err)))
	}
	s.store.folder.Ask(ctx, s.key, book, c.Size)
	return s.present(ctx, c, release, "")
}

// indexDigest is the digest of an index's entry where it is one that can be compared: older
// programs have written others.
func indexDigest(text string) string {
	text = strings.ToLower(strings.TrimPrefix(text, "sha256:"))
	if raw, err := hex.DecodeString(text); err != nil || len(raw) != sha256.Size {
		return ""
	}
	return text
}
