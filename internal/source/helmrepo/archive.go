package helmrepo

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"helm.sh/helm/v4/pkg/chart/loader/archive"
)

// Limits of a chart that have no option. They hold for a chart together with the packed
// charts inside of it.
const (
	// mostUnpacked is what all files of a chart may have together, as in Helm.
	mostUnpacked = 100 << 20
	// mostFiles is how many files a chart may have.
	mostFiles = 20_000
	// mostNested is how deep packed charts may stand in one another.
	mostNested = 8
	// mostPath and mostElement bound the names of files in bytes, and mostFolders their depth.
	mostPath, mostElement, mostFolders = 1024, 255, 32
	// mostHeaders is the room for what an archive has beside the files.
	mostHeaders = 80 << 20
)

var errTooLarge = fmt.Errorf("the chart's files have more than %d bytes together", mostUnpacked)

// budget is what is left of the limits while a chart is read.
type budget struct {
	ctx   context.Context //nolint:containedctx // ends one reading
	file  int64
	total int64
	files int
	// raw is what may come out of archives, with their headers.
	raw int64
	// yaml is what may be decoded.
	yaml yamlBudget
}

func (s *Store) budget(ctx context.Context) *budget {
	return &budget{ctx: ctx, file: s.options.FileBytes, total: mostUnpacked, files: mostFiles, raw: mostUnpacked + mostHeaders, yaml: yamlBudget{bytes: mostDecoded, nodes: mostNodes}}
}

// take accounts for a file before it is read.
func (b *budget) take(name string, size int64) error {
	if b.files--; b.files < 0 {
		return fmt.Errorf("the chart has more than %d files", mostFiles)
	}
	if b.total -= size; size < 0 || b.total < 0 {
		return errTooLarge
	}
	if !isPacked(name) && size > b.file {
		return fmt.Errorf("%q has %d bytes, at most %d are read of a file", clipped(name), size, b.file)
	}
	return nil
}

// visit is told of each file of a chart, with its size. What it leaves of the content is
// skipped.
type visit func(name string, size int64, content io.Reader) error

// isPacked tells whether a file is a packed chart inside a chart, which Helm loads with it.
func isPacked(name string) bool {
	for {
		rest, ok := strings.CutPrefix(name, "charts/")
		if !ok || rest == "" || rest[0] == '.' || rest[0] == '_' {
			return false
		}
		_, below, deeper := strings.Cut(rest, "/")
		if !deeper {
			return path.Ext(rest) == ".tgz"
		}
		name = below
	}
}

// unpackedFolder is where the files of a packed chart inside a chart stand when both are
// read as one. Nothing else stands there, as no name ends like this.
func unpackedFolder(name string) string { return name + "\x00" }

// walkArchive reads a packed chart, and the packed charts in it, without holding more than
// one block of it. Names are relative to the chart's folder, with slashes. Only regular
// files are visited: links, devices and the like are left out.
func walkArchive(in io.Reader, b *budget, see visit) error { return b.archive(in, "", 0, see) }

func (b *budget) archive(in io.Reader, folder string, depth int, see visit) error {
	if depth > mostNested {
		return fmt.Errorf("packed charts stand more than %d deep in one another", mostNested)
	}
	unzipped, err := gzip.NewReader(in)
	if err != nil {
		return fmt.Errorf("it is no packed chart: %w", err)
	}
	packed := tar.NewReader(&metered{unzipped, b})
	seen := names{}
	for {
		header, err := packed.Next()
		switch {
		case errors.Is(err, io.EOF):
			if len(seen) == 0 {
				return errors.New("it is no packed chart: it has no files")
			}
			return nil
		case b.raw <= 0:
			return errTooLarge
		case b.ctx.Err() != nil:
			return b.ctx.Err()
		case err != nil:
			return fmt.Errorf("it is no packed chart: %w", err)
		}
		if header.Typeflag != tar.TypeReg || strings.HasSuffix(header.Name, "/") {
			if err := b.take("", 0); err != nil {
				return err
			}
			continue
		}
		name, err := nameInChart(header)
		if err == nil {
			err = seen.add(name)
		}
		if err == nil {
			err = b.take(name, header.Size)
		}
		if err == nil {
			err = b.open(packed, header.Size, name, folder, depth, see)
		}
		if err != nil {
			return err
		}
	}
}

// metered counts what comes out of an archive, and ends with the context.
type metered struct {
	r io.Reader
	b *budget
}

// Read gives bytes while there is budget.
func (m *metered) Read(p []byte) (int, error) {
	if err := m.b.ctx.Err(); err != nil {
		return 0, err
	}
	if m.b.raw <= 0 {
		return 0, errTooLarge
	}
	n, err := m.r.Read(p[:min(int64(len(p)), m.b.raw)])
	m.b.raw -= int64(n)
	return n, err
}

// open visits a file, or the files of a packed chart, which count besides.
func (b *budget) open(content io.Reader, size int64, name, folder string, depth int, see visit) error {
	if !isPacked(name) {
		err := see(folder+name, size, content)
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("it is no packed chart: %w", err)
		}
		return err
	}
	if err := b.archive(content, folder+unpackedFolder(name)+"/", depth+1, see); err != nil {
		return fmt.Errorf("%q: %w", clipped(name), err)
	}
	return nil
}

// nameInChart is the name of a file without the folder of the chart.
func nameInChart(header *tar.Header) (string, error) {
	for record := range header.PAXRecords {
		if strings.HasPrefix(record, "GNU.sparse.") {
			return "", fmt.Errorf("%q is a sparse file", clipped(header.Name))
		}
	}
	slashed := header.Name
	if strings.Contains(slashed, `\`) { // packed on Windows
		slashed = strings.ReplaceAll(slashed, `\`, "/")
	}
	_, name, _ := strings.Cut(slashed, "/")
	if err := checkName(name); err != nil {
		return "", err
	}
	if strings.HasPrefix(slashed, "/") || strings.HasPrefix(slashed, "../") {
		return "", fmt.Errorf("%q is outside of the chart's folder", clipped(header.Name))
	}
	return name, nil
}

// checkName refuses what is no relative name of a file that stays where it belongs.
func checkName(name string) error {
	drive := len(name) > 2 && name[1] == ':' && name[2] == '/'
	if !fs.ValidPath(name) || name == "." || drive {
		return fmt.Errorf("%q is outside of the chart's folder", clipped(name))
	}
	if len(name) > mostPath || strings.Count(name, "/") > mostFolders {
		return fmt.Errorf("a name has more than %d bytes or %d folders", mostPath, mostFolders)
	}
	if !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return fmt.Errorf("%q has characters that no name of a file may have", clipped(name))
	}
	for element := range strings.SplitSeq(name, "/") {
		if len(element) > mostElement {
			return fmt.Errorf("a name has an element of more than %d bytes", mostElement)
		}
	}
	return nil
}

// names are the files of an archive, true, and the folders that lead to them, false.
type names map[string]bool

// add refuses a name that would make two readers see different files.
func (n names) add(name string) error {
	if _, taken := n[name]; taken {
		return fmt.Errorf("%q is twice in the chart", clipped(name))
	}
	n[name] = true
	for folder := path.Dir(name); folder != "."; folder = path.Dir(folder) {
		if n[folder] {
			return fmt.Errorf("%q is a file and a folder", clipped(folder))
		}
		n[folder] = false
	}
	return nil
}

// readArchive reads a packed chart into memory, as Helm's loader takes it.
func readArchive(in io.Reader, b *budget) ([]*archive.BufferedFile, error) {
	var files []*archive.BufferedFile
	err := walkArchive(in, b, func(name string, size int64, content io.Reader) error {
		data := make([]byte, size) // which was taken from the budget
		if _, err := io.ReadFull(content, data); err != nil {
			return err
		}
		files = append(files, bufferedFile(name, data))
		return nil
	})
	return files, err
}

func bufferedFile(name string, data []byte) *archive.BufferedFile {
	return &archive.BufferedFile{Name: name, Data: withoutMark(data)}
}

// withoutMark drops the byte order mark, as Helm does.
func withoutMark(data []byte) []byte {
	if len(data) >= 3 && data[0] == 0xEF && data[1] == 0xBB && data[2] == 0xBF {
		return data[3:]
	}
	return data
}
