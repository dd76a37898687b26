package helmrepo

import (
	"bufio"
	"bytes"
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
	// mostEntryNodes is how many nodes an entry or the head may have, aliases written out.
	mostEntryNodes = 50_000
	// mostEntryJSON is the longest entry as it is written, in bytes.
	mostEntryJSON = 2 * mostEntry
	// mostHeld is how many bytes of the versions of one chart are held in memory.
	mostHeld = 4 << 20
)

// mostJSON is how many bytes the entries of an index of a size may have as they are written.
// What programs write has a few more than in YAML.
func mostJSON(size int64) int64 { return 64<<20 + 4*size }

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
// Of the charts it has the one that is being read, whose versions are to be put in order: those
// that are long together wait in a file.
type indexWriter struct {
	ctx     context.Context //nolint:containedctx // ends one conversion
	out     io.Writer
	spill   spill
	deflate *flate.Writer
	written int64
	places  []place
	taken   map[string]bool
	charts  int
	// left is how many bytes the entries that are still to come may have.
	left int64
	text bytes.Buffer // an entry that is being written

	chart    string // the chart that is being read
	versions []versionText
	seen     map[string]bool // its versions
	held     int             // bytes of its versions in memory
	spilled  int64           // bytes of its versions in the file

	added, skipped int    // entries that were taken, and that were left out
	first          string // says what the first entry is that is left out
}

// spill is a file for what is not held in memory.
type spill interface {
	io.ReaderAt
	io.WriterAt
}

// versionText is an entry as it will be written: a text, or where it is in the file.
type versionText struct {
	version *semver.Version
	text    []byte
	offset  int64
	length  int
}

func newIndexWriter(ctx context.Context, out io.Writer, temporary spill, most int64) (*indexWriter, error) {
	deflate, err := flate.NewWriter(io.Discard, flate.BestSpeed)
	return &indexWriter{ctx: ctx, out: out, spill: temporary, left: most, deflate: deflate, taken: map[string]bool{}}, err
}

// begin starts a chart. Two of the same name are an error, as it cannot be told which of
// them is meant.
func (w *indexWriter) begin(name string) error {
	if err := w.end(); err != nil {
		return err
	}
	key := name
	if len(name) > mostNames { // of such a chart no version is taken
		key = "long " + digestOf(name)
	}
	if w.taken[key] {
		return fmt.Errorf("chart %q is in the index twice", clipped(name))
	}
	if w.charts++; w.charts > mostCharts {
		return fmt.Errorf("the index has more than %d charts", mostCharts)
	}
	w.taken[key] = true
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
	text, err := w.format(e)
	if err != nil {
		w.skip(version, err)
		return w.ctx.Err()
	}
	if w.left -= int64(len(text)); w.left < 0 {
		return errors.New("the entries of the index take too many bytes as JSON: many times what they have in the index")
	}
	w.seen[e.Version] = true
	w.added++
	w.versions = append(w.versions, versionText{version: parsed, text: bytes.Clone(text), length: len(text)})
	if w.held += len(text); w.held > mostHeld {
		if err := w.putAside(); err != nil {
			return err
		}
	}
	return w.ctx.Err()
}

// format gives an entry as it is written, until the next one.
func (w *indexWriter) format(e *entry) ([]byte, error) {
	w.text.Reset()
	encoder := json.NewEncoder(&w.text)
	encoder.SetEscapeHTML(false) // served escapes it, which makes six bytes of one
	encoder.SetIndent("      ", "  ")
	if err := encoder.Encode(e); err != nil {
		return nil, err
	}
	text := bytes.TrimSuffix(w.text.Bytes(), []byte("\n"))
	if len(text) > mostEntryJSON {
		w.text = bytes.Buffer{}
		return nil, fmt.Errorf("it has more than %d bytes as JSON", mostEntryJSON)
	}
	return text, nil
}

// putAside writes the versions that are in memory to the file.
func (w *indexWriter) putAside() error {
	out := bufio.NewWriterSize(io.NewOffsetWriter(w.spill, w.spilled), 64<<10)
	for i := range w.versions {
		v := &w.versions[i]
		if v.text == nil {
			continue
		}
		if _, err := out.Write(v.text); err != nil {
			return err
		}
		v.text, v.offset = nil, w.spilled
		w.spilled += int64(v.length)
	}
	w.held = 0
	return out.Flush()
}

// put writes a version into the block.
func (w *indexWriter) put(v versionText) error {
	if v.text != nil {
		_, err := w.deflate.Write(v.text)
		return err
	}
	n, err := io.Copy(w.deflate, io.NewSectionReader(w.spill, v.offset, int64(v.length)))
	if err == nil && n != int64(v.length) {
		err = io.ErrUnexpectedEOF
	}
	return err
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
		if err := w.put(v); err != nil {
			return err
		}
		if err := w.ctx.Err(); err != nil {
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
	w.versions, w.seen, w.held, w.spilled = w.versions[:0], nil, 0, 0
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
	if err := w.directory(h); err != nil {
		return err
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

// directory writes the directory, a place at a time.
func (w *indexWriter) directory(h head) error {
	encoder := json.NewEncoder(w.deflate)
	encoder.SetEscapeHTML(false)
	if _, err := io.WriteString(w.deflate, `{"head":`); err != nil {
		return err
	}
	if err := encoder.Encode(h); err != nil {
		return fmt.Errorf("the head of the index cannot be written as JSON: %w", err)
	}
	separator := `,"charts":[`
	if len(w.places) == 0 {
		_, err := io.WriteString(w.deflate, separator+"]}")
		return err
	}
	for _, at := range w.places {
		if _, err := io.WriteString(w.deflate, separator); err != nil {
			return err
		}
		if err := encoder.Encode(at); err != nil {
			return err
		}
		separator = ","
	}
	_, err := io.WriteString(w.deflate, "]}")
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
