package helmrepo

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/gitops"
	"github.com/plumb-gitops/plumb/internal/source"
	"helm.sh/helm/v4/pkg/chart/common"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"sigs.k8s.io/yaml"
)

// packSlice is how long one chart may take from when it is read until it is packed.
const packSlice = 2 * time.Minute

// alone does the work that has all files of a chart in memory, some of them decoded, when it
// is its turn. Whoever waits for the turn holds nothing, and who has it waits for no server.
func (s *Store) alone(ctx context.Context, line *source.Line, work func(context.Context) error) error {
	leave, err := s.packing.Take(ctx, line)
	if err != nil {
		return err
	}
	defer leave()
	limited, cancel := context.WithTimeout(ctx, packSlice)
	defer cancel()
	err = work(limited)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return fault(gitops.Invalid, ReasonPackage, fmt.Errorf("the chart is not packaged within %s, which is the most that one may take", packSlice))
	}
	return err
}

// packedChart is a file with a chart that is not followed yet.
type packedChart struct {
	file  string
	state chartState
	// done gives up the file, unless it was entered.
	done func()
}

// pack writes a chart as a packed one.
func (s *Store) pack(ctx context.Context, sh *shelf, c *chart.Chart, state chartState) (_ packedChart, err error) {
	if err := c.Validate(); err != nil {
		return packedChart{}, fault(gitops.Invalid, ReasonPackage, plain(err))
	}
	if err := checkNames(c.Name(), c.Metadata.Version); err != nil {
		return packedChart{}, fault(gitops.Invalid, ReasonPackage, err)
	}
	file, name, done, err := sh.create()
	if err != nil {
		return packedChart{}, fault(gitops.Transient, ReasonPackage, disk(err))
	}
	defer func() {
		if err != nil {
			done()
		}
	}()
	sum := sha256.New()
	out := &bounded{out: artifact.CountedWriter(ctx, io.MultiWriter(file, sum)), most: s.options.ChartBytes}
	if err := writeChart(ctx, out, c); err != nil {
		if isDisk(err) || ctx.Err() != nil {
			return packedChart{}, fault(gitops.Transient, ReasonPackage, disk(err))
		}
		return packedChart{}, fault(gitops.Invalid, ReasonPackage, err)
	}
	state.Name, state.Version, state.Packaged = c.Name(), c.Metadata.Version, true
	state.Digest, state.Size = "sha256:"+hex.EncodeToString(sum.Sum(nil)), out.written
	return packedChart{name, state, done}, nil
}

// bounded ends with an error where more is written than a packed chart may have.
type bounded struct {
	out           io.Writer
	written, most int64
}

// Write passes bytes on.
func (b *bounded) Write(p []byte) (int, error) {
	if b.written += int64(len(p)); b.written > b.most {
		return 0, fmt.Errorf("the packed chart has more than %d bytes, which is the most that is made", b.most)
	}
	return b.out.Write(p)
}

// writeChart writes a chart as Helm packs one, and the same bytes for the same chart: all
// times are the same, and charts inside of it are in the order of their names.
func writeChart(ctx context.Context, to io.Writer, c *chart.Chart) error {
	zipped := gzip.NewWriter(to)
	w := chartWriter{ctx, tar.NewWriter(zipped)}
	if err := w.chart(c, c.Name()); err != nil {
		return err
	}
	if err := w.tar.Close(); err != nil {
		return err
	}
	return zipped.Close()
}

type chartWriter struct {
	ctx context.Context //nolint:containedctx // ends one writing
	tar *tar.Writer
}

// chart writes a chart into a folder.
func (w chartWriter) chart(c *chart.Chart, folder string) error {
	metadata := *c.Metadata
	if metadata.APIVersion == chart.APIVersionV1 {
		metadata.Dependencies = nil // they are in requirements.yaml
	}
	if err := w.yaml(folder+"/"+chartFile, metadata); err != nil {
		return err
	}
	if c.Lock != nil && metadata.APIVersion == chart.APIVersionV2 {
		if err := w.yaml(folder+"/"+lockFile, c.Lock); err != nil {
			return err
		}
	}
	for _, f := range c.Raw {
		if f.Name == valuesFile {
			if err := w.file(folder+"/"+f.Name, f.Data); err != nil {
				return err
			}
		}
	}
	if c.Schema != nil {
		if !json.Valid(c.Schema) {
			return fmt.Errorf("%s is no JSON", schemaFile)
		}
		if err := w.file(folder+"/"+schemaFile, c.Schema); err != nil {
			return err
		}
	}
	for _, files := range [][]*common.File{c.Templates, c.Files} {
		for _, f := range files {
			if err := w.file(folder+"/"+f.Name, f.Data); err != nil {
				return err
			}
		}
	}
	return w.inside(c, folder+"/charts/")
}

// inside writes the charts inside of a chart. The name of a folder means nothing, so a
// second version of a chart can have another one.
func (w chartWriter) inside(c *chart.Chart, folder string) error {
	taken := map[string]bool{}
	for _, d := range c.Dependencies() {
		name := d.Name()
		if taken[name] {
			name += "-" + d.Metadata.Version
		}
		if taken[name] {
			return fmt.Errorf("chart %q has chart %q twice in the same version", c.Name(), d.Name())
		}
		taken[name] = true
		if err := w.chart(d, folder+name); err != nil {
			return err
		}
	}
	return nil
}

func (w chartWriter) yaml(name string, value any) error {
	text, err := yaml.Marshal(value)
	if err != nil {
		return err
	}
	return w.file(name, text)
}

func (w chartWriter) file(name string, content []byte) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(0, 0)}
	if err := w.tar.WriteHeader(header); err != nil {
		return err
	}
	_, err := w.tar.Write(content)
	return err
}
