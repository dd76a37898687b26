package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// userAgent is the driver's own name. It must not begin as the operator's does.
const userAgent = "plumb-bench/1"

// client is a plain HTTP client of an API server: no rate limit, no cache, no
// discovery. It does what curl would, over one connection.
type client struct {
	http *http.Client
	host string
}

func newClient(kubeconfig string) (*client, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", kubeconfig, err)
	}
	config.UserAgent = userAgent
	transport, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("connect to %q: %w", config.Host, err)
	}
	return &client{http: transport, host: strings.TrimSuffix(config.Host, "/")}, nil
}

// statusError is an answer that is not a success.
type statusError struct {
	code    int
	request string
	body    string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s: status %d: %s", e.request, e.code, e.body)
}

func isNotFound(err error) bool {
	var status *statusError
	return errors.As(err, &status) && status.code == http.StatusNotFound
}

// open sends a request and returns the body of its answer, to be closed.
func (c *client) open(ctx context.Context, method, path, contentType string, body []byte) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.host+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	request.Header.Set("Accept", "application/json")
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= 300 {
		defer response.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(response.Body, 2000))
		return nil, &statusError{code: response.StatusCode, request: method + " " + path, body: string(text)}
	}
	return response.Body, nil
}

// send makes a request and returns the whole answer.
func (c *client) send(ctx context.Context, method, path, contentType string, body []byte) ([]byte, error) {
	answer, err := c.open(ctx, method, path, contentType, body)
	if err != nil {
		return nil, err
	}
	defer answer.Close()
	return io.ReadAll(answer)
}

// item is an object ready to be sent: rendered once, before any clock starts.
type item struct {
	// kind, namespace and name identify it; path is where it lives and
	// collection where its kind does, both without the server.
	kind, namespace, name string
	collection, path      string
	body                  []byte
}

// newItem renders an object.
func newItem(kind resource, namespace, name string, object map[string]any) (item, error) {
	body, err := json.Marshal(object)
	if err != nil {
		return item{}, fmt.Errorf("encode %s %q: %w", kind.kind, name, err)
	}
	collection := kind.path(namespace)
	return item{
		kind: kind.kind, namespace: namespace, name: name,
		collection: collection, path: collection + "/" + name, body: body,
	}, nil
}

const (
	applyPatch = "application/apply-patch+yaml"
	mergePatch = "application/merge-patch+json"
	jsonBody   = "application/json"
)

// apply sends an object by server-side apply.
func (c *client) apply(ctx context.Context, it item, manager string, dryRun bool) error {
	path := it.path + "?force=true&fieldManager=" + manager
	if dryRun {
		path += "&dryRun=All"
	}
	_, err := c.send(ctx, http.MethodPatch, path, applyPatch, it.body)
	return err
}

// patch changes an object as another user would.
func (c *client) patch(ctx context.Context, path string, change map[string]any) error {
	body, err := json.Marshal(change)
	if err != nil {
		return err
	}
	_, err = c.send(ctx, http.MethodPatch, path+"?fieldManager="+foreignManager, mergePatch, body)
	return err
}

// parallel calls do for each index below n on the given number of workers and
// returns the first error.
func parallel(ctx context.Context, workers, n int, do func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(workers, n) {
		wg.Go(func() {
			for i := range next {
				if err := do(ctx, i); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	for i := 0; i < n && ctx.Err() == nil; i++ {
		select {
		case next <- i:
		case <-ctx.Done():
		}
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}
