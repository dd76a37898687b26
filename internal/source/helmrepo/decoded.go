package helmrepo

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/plumb-gitops/plumb/internal/source"
	"helm.sh/helm/v4/pkg/chart/loader/archive"
)

// Limits of the YAML that is decoded for a chart, with the charts in it, its dependencies and
// the values files that are merged: what is decoded takes many times the memory of what is
// written.
const (
	// mostValues is the longest values file in bytes with its aliases written out.
	mostValues = 8 << 20
	// mostDecoded is what all files have together, in the same way.
	mostDecoded = 32 << 20
	// mostNodes is how many nodes they may have, each of which takes some 250 bytes while it
	// is read. The files of large charts have ten
	// thousand each.
	mostNodes = 200_000
)

// nodeSigns are the signs of YAML that a node can come with. A comma in a map, or a question
// mark and the end of its line, can make two: a key, and a value that nobody wrote.
var nodeSigns = []string{"\n", "\r", "\u0085", "\u2028", "\u2029", "[", "{", ",", ",", ":", "- ", "-\t", "? ", "?\t"}

// signs is the most nodes that a text can have, but for aliases.
func signs(text []byte) int {
	if bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff")) {
		return len(text) / 2 // UTF-16, in which the signs are others
	}
	n := 0
	for _, sign := range nodeSigns {
		n += bytes.Count(text, []byte(sign))
	}
	return n
}

// yamlBudget is what is left of the limits.
type yamlBudget struct {
	bytes int64
	nodes int
}

// take accounts for YAML before it is decoded, which may have most bytes if it has aliases.
func (b *yamlBudget) take(text []byte, most int64) error {
	signs := signs(text)
	if signs > b.nodes {
		return tooManyNodes()
	}
	all, err := source.WrittenOut(text, most)
	if err != nil {
		return err
	}
	if b.nodes -= max(signs, int(all.Nodes)); b.nodes < 0 {
		return tooManyNodes()
	}
	if b.bytes -= all.Bytes; b.bytes < 0 {
		return fmt.Errorf("the values and metadata of the chart have more than %d bytes together", mostDecoded)
	}
	return nil
}

func tooManyNodes() error {
	return fmt.Errorf("the values and metadata of the chart have more than about %d nodes of YAML together, aliases written out; keep long texts in files of their own", mostNodes)
}

// takeFiles accounts for those files of a chart that are decoded when it is loaded.
func (b *yamlBudget) takeFiles(files []*archive.BufferedFile) error {
	for _, f := range files {
		switch decodes(f.Name) {
		case "":
			continue
		case valuesFile:
			if err := b.take(f.Data, mostValues); err != nil {
				return fmt.Errorf("%q: %w", shownFile(f.Name), plain(err))
			}
		default:
			if len(f.Data) > mostMetadata {
				return fmt.Errorf("%s has more than %d bytes", shownFile(f.Name), mostMetadata)
			}
			if err := b.take(f.Data, mostMetadata); err != nil {
				return fmt.Errorf("%q: %w", shownFile(f.Name), plain(err))
			}
		}
	}
	return nil
}

// decodes tells which of the files that Helm's loader decodes a file of a chart is, or of a
// chart in it.
func decodes(name string) string {
	for {
		switch name {
		case chartFile, lockFile, valuesFile, "requirements.yaml", "requirements.lock":
			return name
		}
		rest, inside := strings.CutPrefix(name, "charts/")
		if !inside {
			return ""
		}
		if _, name, inside = strings.Cut(rest, "/"); !inside {
			return ""
		}
	}
}

// shownFile is the name of a file for messages.
func shownFile(name string) string { return clipped(strings.ReplaceAll(name, "\x00", "")) }
