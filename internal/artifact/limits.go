package artifact

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
)

// limits bound an artifact, where it is packed and where it is unpacked.
type limits struct {
	// file and total are how many bytes a file has, and all together.
	file, total int64
	// archive is how many bytes the tar has, with all that is no content, and packed how
	// many are left of that when it is compressed.
	archive, packed int64
	// entries is how many files it has, and how many with the directories that lead to them.
	entries int
	// names is how many bytes the paths of all files have: they are held in memory while it
	// is in use. Folders is how deep a file may be.
	names, folders int
}

const (
	// maxPathBytes is the longest path of a file.
	maxPathBytes = 4096
	// maxInMemory is how many bytes the files of an artifact have that is read into memory.
	maxInMemory = 512 << 20
)

// ofOthers are the limits of artifacts that others have packed.
func ofOthers() limits {
	const total = 2 << 30
	return limits{
		file: 1 << 30, total: total, archive: total, packed: 512 << 20,
		entries: 200_000, names: 32 << 20, folders: 100,
	}
}

// ofOurs are those of a Store. What it packs has to be unpacked after a restart, so that both
// have the same.
func ofOurs() limits {
	const (
		total, entries = 4 << 30, 1_000_000
		// header is what the archive has for a file beside its content: a block, what fills
		// the last one, and as much again and the path where that is long.
		header = 2<<10 + maxPathBytes
	)
	return limits{
		file: 1 << 30, total: total, archive: total + entries*header, packed: total + entries*header,
		entries: entries, names: 128 << 20, folders: 256,
	}
}

// inMemory are those of artifacts of others that are read into memory, for which less has to
// do. In all else they are judged as in a Cache.
func inMemory() limits {
	most := ofOthers()
	most.total, most.archive = maxInMemory, maxInMemory
	return most
}

// path refuses paths of files that are too long or too deep.
func (l limits) path(name string) error {
	if len(name) > maxPathBytes || strings.Count(name, "/") > l.folders {
		return fmt.Errorf("it has a file with a path of more than %d bytes or %d folders", maxPathBytes, l.folders)
	}
	return nil
}

// extract goes through the regular files of a packed artifact, a gzipped tar. Links are left
// out, as Flux does; a name that leaves the artifact is an error.
func (l limits) extract(ctx context.Context, packed io.Reader, add func(name string, executable bool, content io.Reader) error) error {
	unzipped, err := gzip.NewReader(packed)
	if err != nil {
		return fmt.Errorf("it is no gzipped tar: %w", err)
	}
	limited := &io.LimitedReader{R: Endable(ctx, unzipped), N: l.archive + 1}
	archive := tar.NewReader(limited)
	left := l.total
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		header, err := archive.Next()
		switch {
		case errors.Is(err, io.EOF) && limited.N > 0:
			return nil
		case limited.N <= 0:
			return tooMuch(l.archive)
		case err != nil:
			return fmt.Errorf("it is no gzipped tar: %w", err)
		}
		name := path.Clean(header.Name)
		if !fs.ValidPath(name) {
			return fmt.Errorf("%q is outside of it", header.Name)
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		if err := l.check(header, name); err != nil {
			return err
		}
		if left -= header.Size; left < 0 {
			return tooMuch(l.total)
		}
		if err := add(name, header.Mode&0o100 != 0, archive); err != nil {
			return err
		}
	}
}

func tooMuch(most int64) error { return fmt.Errorf("its files have more than %d bytes", most) }

// check refuses files that are not unpacked.
func (l limits) check(header *tar.Header, name string) error {
	if name == "." {
		return errors.New("it has a file without a name")
	}
	if err := l.path(name); err != nil {
		return err
	}
	// The holes of a sparse file take no space in the archive, and all of it here.
	for record := range header.PAXRecords {
		if strings.HasPrefix(record, "GNU.sparse.") {
			return fmt.Errorf("%q is a sparse file", header.Name)
		}
	}
	if header.Size > l.file {
		return fmt.Errorf("%q has %d bytes, at most %d are unpacked of a file", header.Name, header.Size, l.file)
	}
	return nil
}
