package helmrepo

import (
	"bytes"
	"cmp"
	"compress/flate"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"
	"github.com/plumb-gitops/plumb/internal/egress"
)

// Limits of an index that have no option.
const (
	mostCharts   = 100_000
	mostVersions = 500_000
	// mostEntry is the longest entry, and the longest head of an index, in bytes.
	mostEntry = 1 << 20
)

// An index is kept in a compact form of our own, about a tenth of what it is in YAML:
//
//	block…      the versions of one chart, newest first, as an array in JSON, deflated
//	directory   the head of the index and where the blocks are, as JSON, deflated
//	trailer     where the directory is, and its sum
//
// So one chart is found by reading the directory and one block, and the whole is read from
// the beginning to the end without holding it.

// directory is what an index has beside the versions.
type directory struct {
	Head   head    `json:"head"`
	Charts []place `json:"charts"`
}

// place is where the block of a chart is. The charts of a directory are in order.
type place struct {
	Name   string `json:"n"`
	Offset int64  `json:"o"`
	Length int64  `json:"l"`
	Sum    uint32 `json:"s"`
}

// head is what an index says beside its charts, in Helm's form.
type head struct {
	ServerInfo  map[string]any    `json:"serverInfo,omitempty" yaml:"serverInfo"`
	APIVersion  string            `json:"apiVersion" yaml:"apiVersion"`
	Generated   time.Time         `json:"generated" yaml:"generated"`
	PublicKeys  []string          `json:"publicKeys,omitempty" yaml:"publicKeys"`
	Annotations map[string]string `json:"annotations,omitempty" yaml:"annotations"`
}

const trailerLength = 8 + 8 + 4 + 4

func trailerMark() []byte { return []byte("plx1") }

// indexWriter takes the charts of an index one after the other and writes the compact form.
// Of the charts it holds the one that is being read.
type indexWriter struct {
	ctx     context.Context //nolint:containedctx // ends one conversion
	out     io.Writer
	deflate *flate.Writer
	written int64
	places  []place
	taken   map[string]bool

	chart    string // the chart that is being read
	versions []versionText
	seen     map[string]bool // its versions

	added, skipped int    // entries that were taken, and that were left out
	first          string // says what the first entry is that is left out
}

// versionText is an entry as it will be written.
type versionText struct {
	version *semver.Version
	text    []byte
}

func newIndexWriter(ctx context.Context, out io.Writer) (*indexWriter, error) {
	deflate, err := flate.NewWriter(io.Discard, flate.BestSpeed)
	return &indexWriter{ctx: ctx, out: out, deflate: deflate, taken: map[string]bool{}}, err
}

// begin starts a chart. Two of the same name are an error, as it cannot be told which of
// them is meant.
func (w *indexWriter) begin(name string) error {
	if err := w.end(); err != nil {
		return err
	}
	if w.taken[name] {
		return fmt.Errorf("chart %q is in the index twice", clipped(name))
	}
	if len(w.taken) >= mostCharts {
		return fmt.Errorf("the index has more than %d charts", mostCharts)
	}
	w.taken[name] = true
	w.chart, w.seen = name, map[string]bool{}
	return w.ctx.Err()
}

// skip leaves out an entry of the chart.
func (w *indexWriter) skip(version string, why error) {
	w.skipped++
	if w.skipped > 1 {
		return
	}
	what := "an entry"
	if version != "" {
		what = fmt.Sprintf("version %q", clipped(version))
	}
	w.first = egress.Printable(fmt.Sprintf("%s of chart %q: %s", what, clipped(w.chart), why))
}

// add takes an entry of the chart, or leaves it out where it cannot be used.
func (w *indexWriter) add(e *entry) error {
	if w.added+w.skipped >= mostVersions {
		return fmt.Errorf("the index has more than %d versions of charts", mostVersions)
	}
	version := ""
	if e != nil && e.Metadata != nil {
		version = e.Version
	}
	if err := e.check(w.chart); err != nil {
		w.skip(version, err)
		return w.ctx.Err()
	}
	if w.seen[e.Version] {
		w.skip(version, errors.New("it is in the index twice"))
		return w.ctx.Err()
	}
	parsed, err := semver.NewVersion(e.Version)
	if err != nil {
		w.skip(version, err)
		return w.ctx.Err()
	}
	text, err := json.MarshalIndent(e, "      ", "  ")
	if err != nil {
		w.skip(version, err)
		return w.ctx.Err()
	}
	w.seen[e.Version] = true
	w.added++
	w.versions = append(w.versions, versionText{parsed, text})
	return w.ctx.Err()
}

// end writes the block of the chart that was read.
func (w *indexWriter) end() error {
	if len(w.versions) == 0 {
		return nil
	}
	slices.SortStableFunc(w.versions, func(a, b versionText) int { return b.version.Compare(a.version) })
	block := &summed{out: w.out}
	w.deflate.Reset(block)
	separator := "[\n      "
	for _, v := range w.versions {
		if _, err := io.WriteString(w.deflate, separator); err != nil {
			return err
		}
		if _, err := w.deflate.Write(v.text); err != nil {
			return err
		}
		separator = ",\n      "
	}
	if _, err := io.WriteString(w.deflate, "\n    ]"); err != nil {
		return err
	}
	if err := w.deflate.Close(); err != nil {
		return err
	}
	w.places = append(w.places, place{w.chart, w.written, block.length, block.sum})
	w.written += block.length
	clear(w.versions)
	w.versions, w.seen = w.versions[:0], nil
	return nil
}

// finish writes what comes behind the blocks.
func (w *indexWriter) finish(h head) error {
	if err := w.end(); err != nil {
		return err
	}
	if h.APIVersion == "" {
		return errors.New("the index has no apiVersion")
	}
	slices.SortFunc(w.places, func(a, b place) int { return strings.Compare(a.Name, b.Name) })
	block := &summed{out: w.out}
	w.deflate.Reset(block)
	if err := json.NewEncoder(w.deflate).Encode(directory{h, w.places}); err != nil {
		return fmt.Errorf("the head of the index cannot be written as JSON: %w", err)
	}
	if err := w.deflate.Close(); err != nil {
		return err
	}
	trailer := binary.BigEndian.AppendUint64(nil, uint64(w.written)) //nolint:gosec // a length
	trailer = binary.BigEndian.AppendUint64(trailer, uint64(block.length))
	trailer = binary.BigEndian.AppendUint32(trailer, block.sum)
	_, err := w.out.Write(append(trailer, trailerMark()...))
	return err
}

// warning says what was left out, in one sentence; "" where it was nothing.
func (w *indexWriter) warning() string {
	switch w.skipped {
	case 0:
		return ""
	case 1:
		return "the index has an entry that cannot be used: " + w.first
	default:
		return fmt.Sprintf("the index has %d entries that cannot be used, the first is %s", w.skipped, w.first)
	}
}

// summed counts and sums what it passes on.
type summed struct {
	out    io.Writer
	length int64
	sum    uint32
}

// Write passes bytes on.
func (s *summed) Write(p []byte) (int, error) {
	n, err := s.out.Write(p)
	s.length += int64(n)
	s.sum = crc32.Update(s.sum, crc32.IEEETable, p[:n])
	return n, err
}

// parts are the texts of a head before and behind the charts.
func (h head) parts() (before, behind []byte, err error) {
	before, err = json.MarshalIndent(struct {
		ServerInfo map[string]any `json:"serverInfo,omitempty"`
		APIVersion string         `json:"apiVersion"`
		Generated  time.Time      `json:"generated"`
	}{h.ServerInfo, h.APIVersion, h.Generated}, "", "  ")
	if err != nil {
		return nil, nil, err
	}
	behind, err = json.MarshalIndent(struct {
		PublicKeys  []string          `json:"publicKeys,omitempty"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}{h.PublicKeys, h.Annotations}, "", "  ")
	before = append(bytes.TrimSuffix(before, []byte("\n}")), ",\n  \"entries\": {"...)
	if rest, ok := bytes.CutPrefix(behind, []byte("{\n")); ok {
		return before, append([]byte("},\n"), rest...), err
	}
	return before, []byte("}\n}"), err
}

// find is the place of a chart.
func (d directory) find(name string) (place, bool) {
	i, ok := slices.BinarySearchFunc(d.Charts, name, func(p place, name string) int { return cmp.Compare(p.Name, name) })
	if !ok {
		return place{}, false
	}
	return d.Charts[i], true
}
