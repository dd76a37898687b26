package helmrepo

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/plumb-gitops/plumb/internal/source"
	"go.yaml.in/yaml/v3"
)

// errIrregular is an index in YAML that is not written as Helm writes it, so that it has to
// be read as a whole.
var errIrregular = errors.New("the index is not in the form that Helm writes")

// yamlIndex reads an index in YAML without holding it. A YAML parser would need twenty
// times the bytes of the index as memory; so the text is cut, by its indentation alone, into
// what a parser gets one by one: the head, and each version of each chart. That is right for
// what Helm and all other programs write, block style with entries as lists. Whatever
// looks otherwise is errIrregular. A cut at the wrong place, which takes a quoted text that
// breaks YAML's own rules of indentation, leaves a piece that is no YAML, and so is skipped.
type yamlIndex struct {
	in *bufio.Reader
	w  *indexWriter

	head      bytes.Buffer
	inEntries bool // the key entries is open
	entries   bool // it was seen
	begun     bool // a key was seen

	key, list int // columns of the charts and of their versions; -1 until known
	chart     bool
	item      bytes.Buffer
	open      bool // item is a version that is being read
	long      bool // item is longer than mostEntry
}

// readYAML reads an index in YAML.
func readYAML(in io.Reader, w *indexWriter) error {
	y := &yamlIndex{in: bufio.NewReaderSize(in, 64<<10), w: w, key: -1, list: -1}
	for first := true; ; first = false {
		line, cut, err := y.line()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if first {
			line = withoutMark(line)
		}
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return y.finish()
		}
		if err := y.take(line, cut); err != nil {
			return err
		}
	}
}

// line reads a line without its end. Of a longer one than an entry may be, only the
// beginning is given.
func (y *yamlIndex) line() (line []byte, cut bool, err error) {
	line, err = y.in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		line = bytes.Clone(line)
		for errors.Is(err, bufio.ErrBufferFull) {
			var more []byte
			more, err = y.in.ReadSlice('\n')
			if len(line) <= mostEntry {
				line = append(line, more...)
			} else {
				cut = true
			}
		}
	}
	return bytes.TrimRight(line, "\r\n"), cut, err
}

// take looks where a line belongs.
func (y *yamlIndex) take(line []byte, cut bool) error {
	text := bytes.TrimLeft(line, " ")
	column := len(line) - len(text)
	switch {
	case len(text) == 0 || text[0] == '#':
		return y.append(line, cut)
	case text[0] == '\t':
		if !y.open && y.inEntries {
			return errIrregular
		}
		return y.append(line, cut)
	case column == 0:
		return y.top(line, cut)
	case !y.inEntries:
		return y.append(line, cut)
	}
	if y.key < 0 {
		y.key = column
	}
	isItem := text[0] == '-' && (len(text) == 1 || text[1] == ' ')
	switch {
	case column < y.key:
		return errIrregular
	case column == y.key && !isItem:
		return y.begin(text, cut)
	case !y.chart:
		return errIrregular
	}
	if y.list < 0 {
		y.list = column
	}
	switch {
	case column == y.list && isItem:
		if err := y.close(); err != nil {
			return err
		}
		y.open = true
	case column <= y.list || !y.open:
		return errIrregular
	}
	return y.append(line, cut)
}

// top takes a line that begins at the first column.
func (y *yamlIndex) top(line []byte, cut bool) error {
	if !y.begun && string(bytes.TrimRight(line, " ")) == "---" {
		return nil
	}
	if line[0] == '-' && !y.inEntries && y.begun && !bytes.HasPrefix(line, []byte("---")) {
		return y.append(line, cut)
	}
	name, rest, ok := plainKey(line)
	if !ok {
		return errIrregular
	}
	if err := y.close(); err != nil {
		return err
	}
	y.begun, y.inEntries, y.chart = true, false, false
	if name != "entries" {
		return y.append(line, cut)
	}
	if y.entries {
		return errors.New("the index has entries twice")
	}
	y.entries = true
	switch rest {
	case "":
		y.inEntries = true
	case "{}", "null", "~":
	default:
		return errIrregular
	}
	return nil
}

// begin takes the line of a chart's name.
func (y *yamlIndex) begin(text []byte, cut bool) error {
	if err := y.close(); err != nil {
		return err
	}
	name, rest, ok := plainKey(text)
	if !ok && !cut && (text[0] == '"' || text[0] == '\'') {
		// A quoted name; anything but a plain one after it is for the parser of the whole.
		var quoted map[string]any
		if err := decode(text, &quoted, mostEntry, mostEntryNodes); err != nil || len(quoted) != 1 {
			return errIrregular
		}
		for key, value := range quoted {
			name, ok = key, value == nil
		}
	}
	if !ok {
		return errIrregular
	}
	y.list = -1
	switch rest {
	case "":
		y.chart = true
	case "[]", "null", "~":
		y.chart = false
	default:
		return errIrregular
	}
	return y.w.begin(name)
}

// plainKey reads a key that needs no quotes, and what is behind it without a comment.
func plainKey(line []byte) (name, rest string, ok bool) {
	end := bytes.IndexByte(line, ':')
	if end <= 0 || end+1 < len(line) && line[end+1] != ' ' {
		return "", "", false
	}
	for i, c := range line[:end] {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '-' && c != '_' && c != '.' && c != '/') {
			return "", "", false
		}
	}
	rest = strings.TrimSpace(string(line[end+1:]))
	if strings.HasPrefix(rest, "#") {
		rest = ""
	}
	return string(line[:end]), rest, true
}

// append adds a line to what is being read.
func (y *yamlIndex) append(line []byte, cut bool) error {
	to := &y.head
	if y.inEntries {
		if !y.open {
			return nil // a comment
		}
		to = &y.item
	}
	if cut || to.Len()+len(line) > mostEntry {
		if !y.inEntries {
			return fmt.Errorf("the index has more than %d bytes beside its entries", mostEntry)
		}
		y.long = true
		return nil
	}
	to.Write(line)
	to.WriteByte('\n')
	return nil
}

// close hands on the version that was read.
func (y *yamlIndex) close() error {
	if !y.open {
		return nil
	}
	defer y.item.Reset()
	long := y.long
	y.open, y.long = false, false
	if long {
		y.w.skip("", fmt.Errorf("it has more than %d bytes", mostEntry))
		return nil
	}
	var items []*written
	if err := decode(y.item.Bytes(), &items, mostEntry, mostEntryNodes); err != nil {
		if strings.Contains(err.Error(), "unknown anchor") {
			return errIrregular
		}
		y.w.skip("", plainYAML(err))
		return y.w.ctx.Err()
	}
	if len(items) != 1 {
		return errIrregular
	}
	return y.w.add(items[0].entry())
}

// decode reads YAML that has no more than most bytes and so many nodes with its aliases written
// out.
func decode(text []byte, into any, most, nodes int64) error {
	if int64(signs(text)) > nodes {
		return tooMany(nodes)
	}
	all, err := source.WrittenOut(text, most)
	if err != nil {
		return err
	}
	if all.Nodes > nodes {
		return tooMany(nodes)
	}
	return yaml.Unmarshal(text, into)
}

func tooMany(nodes int64) error { return fmt.Errorf("it has more than about %d nodes", nodes) }

// plainYAML is the error of the YAML parser for people; its lines would be those of a piece.
func plainYAML(err error) error {
	var wrong *yaml.TypeError
	if errors.As(err, &wrong) && len(wrong.Errors) > 0 {
		err = errors.New(wrong.Errors[0])
	}
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		_, text, _ = strings.Cut(rest, ": ")
	}
	return plain(errors.New(text))
}

// finish reads the head.
func (y *yamlIndex) finish() error {
	if err := y.close(); err != nil {
		return err
	}
	var h head
	if err := decode(y.head.Bytes(), &h, mostEntry, mostEntryNodes); err != nil {
		return fmt.Errorf("the head of the index: %w", plainYAML(err))
	}
	return y.w.finish(h)
}

// mostWrittenOut is how many bytes an index has at most that is read as a whole, once its
// aliases are written out.
const mostWrittenOut = 2 * mostIrregular

// readWhole reads an index in YAML that may be written in any way. It holds all of it.
func readWhole(in io.Reader, w *indexWriter) error {
	text, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	var index struct {
		head    `yaml:",inline"`
		Entries yaml.Node `yaml:"entries"`
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return errors.New("the index is empty")
	}
	if err := decode(text, &index, mostWrittenOut, mostIrregularNodes); err != nil {
		return fmt.Errorf("the index is no YAML that can be read: %w", plainYAML(err))
	}
	charts := aliased(&index.Entries)
	switch {
	case charts.Kind == 0 || charts.Tag == "!!null":
		return w.finish(index.head)
	case charts.Kind != yaml.MappingNode:
		return errors.New("the entries of the index are no map")
	}
	for i := 0; i+1 < len(charts.Content); i += 2 {
		name := aliased(charts.Content[i])
		if name.Kind != yaml.ScalarNode {
			return errors.New("the index has a name of a chart that is no text")
		}
		if err := w.begin(name.Value); err != nil {
			return err
		}
		versions := aliased(charts.Content[i+1])
		if versions.Kind != yaml.SequenceNode && versions.Tag != "!!null" {
			return fmt.Errorf("the versions of chart %q are no list", clipped(name.Value))
		}
		for _, node := range versions.Content {
			var version *written
			if err := node.Decode(&version); err != nil {
				w.skip("", plainYAML(err))
				continue
			}
			if err := w.add(version.entry()); err != nil {
				return err
			}
		}
	}
	return w.finish(index.head)
}

// aliased is the node that an alias stands for.
func aliased(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}
