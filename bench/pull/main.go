// Pull pulls the artifacts of an OCI registry and ends. The benchmark runs it to see how
// long that takes: with Plumb's store, or with a plain client that reads the layers and
// does nothing with them. The registry is this program too, in a process of its own.
//
//	pull serve COUNT DELAY
//	pull bare HOST COUNT WORKERS
//	pull plumb HOST COUNT WORKERS FOLDER
//
// A registry answers each request DELAY after it has come, as one does that is far away. It
// prints its HOST and ends when its standard input does. The others print the seconds that all pulls took together, without the start of the process.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"

	"github.com/plumb-gitops/plumb/internal/artifact"
	"github.com/plumb-gitops/plumb/internal/source/oci"
)

const (
	// within is how long all pulls may take together.
	within = 5 * time.Minute
	// contentType is that of what "flux push artifact" pushes.
	contentType = "application/vnd.cncf.flux.content.v1.tar+gzip"
	// filesEach are in each artifact, of 650 bytes.
	filesEach = 20
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "pull:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	usage := errors.New("usage: pull serve COUNT DELAY | bare HOST COUNT WORKERS | plumb HOST COUNT WORKERS FOLDER")
	if len(args) == 3 && args[0] == "serve" {
		count, err := strconv.Atoi(args[1])
		if err != nil {
			return usage
		}
		delay, err := time.ParseDuration(args[2])
		if err != nil {
			return usage
		}
		return serve(count, delay)
	}
	if len(args) < 4 {
		return usage
	}
	count, err := strconv.Atoi(args[2])
	if err != nil {
		return usage
	}
	workers, err := strconv.Atoi(args[3])
	if err != nil {
		return usage
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	all := pulls{ctx: ctx, host: args[1], count: count, workers: workers}
	switch {
	case args[0] == "bare" && len(args) == 4:
		return all.bare()
	case args[0] == "plumb" && len(args) == 5:
		return all.plumb(args[4])
	default:
		return usage
	}
}

// repository is the name of the i-th.
func repository(i int) string { return fmt.Sprintf("team/app-%03d", i) }

// serve is a registry with an artifact tagged latest in each of its repositories. It is
// filled without the delay.
func serve(count int, delay time.Duration) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	quiet := log.New(io.Discard, "", 0)
	var filled atomic.Bool
	content := registry.New(registry.Logger(quiet))
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if filled.Load() {
			time.Sleep(delay)
		}
		content.ServeHTTP(w, r)
	}), ErrorLog: quiet, ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	for i := range count {
		if err := push(listener.Addr().String(), i); err != nil {
			return errors.Join(err, server.Close())
		}
	}
	filled.Store(true)
	fmt.Println(listener.Addr())
	_, err = io.Copy(io.Discard, os.Stdin)
	err = errors.Join(err, server.Close())
	if ended := <-served; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}

// push makes the artifact of one repository.
func push(host string, i int) error {
	content, err := pack(i)
	if err != nil {
		return err
	}
	image, err := mutate.AppendLayers(empty.Image, static.NewLayer(content, contentType))
	if err != nil {
		return err
	}
	ref, err := name.ParseReference(host + "/" + repository(i) + ":latest")
	if err != nil {
		return err
	}
	return remote.Write(ref, image)
}

// pack is the layer of one repository.
func pack(i int) ([]byte, error) {
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	files := tar.NewWriter(zip)
	for j := range filesEach {
		content := fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: app-%d-%d\ndata:\n  text: %q\n", i, j, strings.Repeat("some text ", 55))
		header := &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("app/%d.yaml", j), Mode: 0o644, Size: int64(len(content))}
		if err := files.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(files, content); err != nil {
			return nil, err
		}
	}
	err := errors.Join(files.Close(), zip.Close())
	return packed.Bytes(), err
}

// pulls are those of all repositories of a registry.
type pulls struct {
	ctx            context.Context
	host           string
	count, workers int
}

// time does something for each repository and prints how long all of it took.
func (p pulls) time(do func(repository string) error) error {
	next := make(chan int)
	var wait sync.WaitGroup
	var mu sync.Mutex // guards failed
	var failed error
	began := time.Now()
	for range p.workers {
		wait.Go(func() {
			for i := range next {
				if err := do(repository(i)); err != nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
				}
			}
		})
	}
	for i := range p.count {
		next <- i
	}
	close(next)
	wait.Wait()
	if failed == nil {
		fmt.Printf("%.6f\n", time.Since(began).Seconds())
	}
	return failed
}

// bare reads the layer of each artifact.
func (p pulls) bare() error {
	return p.time(func(repository string) error {
		ref, err := name.ParseReference(p.host + "/" + repository)
		if err != nil {
			return err
		}
		image, err := remote.Image(ref, remote.WithContext(p.ctx))
		if err != nil {
			return err
		}
		layers, err := image.Layers()
		if err != nil {
			return err
		}
		content, err := layers[0].Compressed()
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, content)
		return errors.Join(err, content.Close())
	})
}

// plumb has each artifact unpacked and kept on disk, as the operator does.
func (p pulls) plumb(folder string) (err error) {
	cache, err := artifact.OpenCache(filepath.Join(folder, "cache"))
	if err != nil {
		return err
	}
	store, err := oci.Open(cache, filepath.Join(folder, "oci"), oci.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return p.time(func(repository string) error {
		result, err := store.Fetch(p.ctx, oci.Request{URL: "oci://" + p.host + "/" + repository, Insecure: true}, "")
		if err != nil {
			return err
		}
		defer result.Release()
		if result.Unchanged {
			return fmt.Errorf("%s: unchanged at the first fetch", repository)
		}
		return nil
	})
}
