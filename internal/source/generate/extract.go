package generate

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/plumb-gitops/plumb/internal/artifact"
)

// isArchive tells whether a file is one that can be extracted, by its name.
func isArchive(name string) bool {
	name = strings.ToLower(name)
	return strings.HasSuffix(name, ".tar.gz") || strings.HasSuffix(name, ".tgz")
}

// storageError is one of unpacking what was found to be in order.
type storageError struct{ cause error }

// Error is that of the cause.
func (e *storageError) Error() string { return e.cause.Error() }

// Unwrap gives the cause.
func (e *storageError) Unwrap() error { return e.cause }

// extract unpacks an archive of the source to a path, which becomes a directory.
func (r *rule) extract(name, to string) error {
	if r.archives--; r.archives < 0 {
		return fmt.Errorf("more than %d archives are extracted for the artifacts of one generator", mostArchives)
	}
	info, err := r.src.Files.Stat(name)
	switch {
	case err != nil:
		return err
	case info.IsDir():
		return fmt.Errorf("%q is a directory: only archives are extracted", name)
	}
	if err := r.look(r.ctx, 1); err != nil {
		return err
	}
	digest, err := r.inspect(name)
	if err != nil {
		return fmt.Errorf("archive %q: %w", name, err)
	}
	files, release, err := r.unpack(r.ctx, digest, func() (io.ReadCloser, error) { return r.src.Files.Open(name) })
	if err != nil {
		return &storageError{fmt.Errorf("archive %q: %w", name, err)}
	}
	r.releases = append(r.releases, release)
	if err := r.put(to, newDirectory()); err != nil {
		return err
	}
	return r.put(to, &node{from: Source{ID: "archive:" + digest, Files: files}, at: ".", dir: true})
}

// inspect reads an archive, and gives its digest where it holds nothing that must not be
// unpacked.
func (r *rule) inspect(name string) (digest string, err error) {
	file, err := r.src.Files.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	sum := sha256.New()
	all := io.TeeReader(artifact.Endable(r.ctx, file), sum)
	if err := inspectArchive(all); err != nil {
		if r.ctx.Err() != nil {
			return "", r.ctx.Err()
		}
		return "", err
	}
	// What follows the end of the archive is part of its digest.
	if _, err := io.Copy(io.Discard, all); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), nil
}

// Bounds of names in an archive.
const (
	mostNameBytes = 4096
	mostNameDepth = 100
)

// inspectArchive reads a gzipped tar to its end. It refuses what Flux refuses, names that
// lead out of it and links among it, and all that is too much.
func inspectArchive(packed io.Reader) error {
	unzipped, err := gzip.NewReader(packed)
	if err != nil {
		return errors.New("it is no gzipped tar")
	}
	limited := &io.LimitedReader{R: unzipped, N: 2 * mostExtracted}
	archive := tar.NewReader(limited)
	in := inspected{left: mostExtracted, seen: map[string]bool{}}
	for n := 0; ; n++ {
		header, err := archive.Next()
		switch {
		case errors.Is(err, io.EOF) && limited.N > 0:
			return nil
		case limited.N <= 0:
			return in.tooMuch()
		case err != nil:
			return errors.New("it is no gzipped tar, or is truncated")
		case n >= mostExtractedFiles:
			return fmt.Errorf("it has more than %d entries", mostExtractedFiles)
		}
		if err := in.entry(header); err != nil {
			return err
		}
	}
}

// inspected is what was seen of an archive.
type inspected struct {
	left int64
	// seen tells of each name whether it is that of a directory.
	seen map[string]bool
}

func (inspected) tooMuch() error {
	return fmt.Errorf("its files have more than %d bytes", mostExtracted)
}

func (in *inspected) entry(header *tar.Header) error {
	if header.Typeflag == tar.TypeXGlobalHeader {
		return nil // a comment
	}
	if len(header.Name) > mostNameBytes || strings.Count(header.Name, "/") > mostNameDepth {
		return fmt.Errorf("it has a path of more than %d bytes or %d directories", mostNameBytes, mostNameDepth)
	}
	name := path.Clean(header.Name)
	if header.Name == "" || !fs.ValidPath(name) || strings.ContainsAny(header.Name, "\\\x00") || strings.Contains(header.Name, "../") {
		return fmt.Errorf("%q is outside of it, or is no name", header.Name)
	}
	if in.left -= max(header.Size, 0); in.left < 0 {
		return in.tooMuch()
	}
	for record := range header.PAXRecords {
		if strings.HasPrefix(record, "GNU.sparse.") {
			return fmt.Errorf("%q is a sparse file", header.Name)
		}
	}
	switch header.Typeflag {
	case tar.TypeReg:
		return in.enter(name, false)
	case tar.TypeDir:
		return in.enter(name, true)
	}
	return fmt.Errorf("%q is neither a file nor a directory: nothing else is extracted", header.Name)
}

// enter remembers a name and the directories that lead to it.
func (in *inspected) enter(name string, dir bool) error {
	was, twice := in.seen[name]
	switch {
	case twice && was && dir, name == "." && dir:
		return nil
	case twice || name == ".":
		return fmt.Errorf("%q is in it twice", name)
	}
	in.seen[name] = dir
	for above := path.Dir(name); above != "."; above = path.Dir(above) {
		was, known := in.seen[above]
		if known && !was {
			return fmt.Errorf("%q is a file and a directory in it", above)
		}
		if known {
			break
		}
		in.seen[above] = true
	}
	return nil
}
