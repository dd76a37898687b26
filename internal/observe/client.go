package observe

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

// client lists and watches objects of any kind, whole or their metadata only.
type client struct {
	metadata metadata.Interface
	whole    dynamic.Interface
}

func newClient(config *rest.Config) (*client, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.RateLimiter, config.Timeout = -1, nil, 0
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return ownRetries{next} })
	m, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client for metadata: %w", err)
	}
	w, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client for whole objects: %w", err)
	}
	return &client{metadata: m, whole: w}, nil
}

// ownRetries keeps client-go from sending a request again by itself: a watcher
// does that, and knows better when. What the server asks for is in the body too.
type ownRetries struct{ next http.RoundTripper }

// RoundTrip sends a request.
func (t ownRetries) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := t.next.RoundTrip(request)
	if err != nil {
		return nil, &unanswered{err}
	}
	if response.StatusCode == http.StatusTooManyRequests {
		response.Header.Del("Retry-After")
	}
	return response, nil
}

// unanswered is a request that got no answer. It hides why from client-go, which takes
// a connection that is reset or runs out of time for a watch that is over without an
// event: a server that is away would look like one at which nothing happens.
type unanswered struct{ cause error }

// Error does not say why, as client-go looks for words.
func (*unanswered) Error() string { return "no answer" }

// why gives what a request that got no answer failed of.
func why(err error) error {
	var hidden *unanswered
	if errors.As(err, &hidden) {
		return hidden.cause
	}
	return err
}

// target is what to list and watch.
type target struct {
	resource  schema.GroupVersionResource
	namespace string
	full      bool
	labels    string
	fields    string
}

func (t target) options(o metav1.ListOptions) metav1.ListOptions {
	o.LabelSelector, o.FieldSelector = t.labels, t.fields
	return o
}

func (c *client) watch(ctx context.Context, t target, options metav1.ListOptions) (watch.Interface, error) {
	var events watch.Interface
	var err error
	if t.full {
		events, err = c.whole.Resource(t.resource).Namespace(t.namespace).Watch(ctx, t.options(options))
	} else {
		events, err = c.metadata.Resource(t.resource).Namespace(t.namespace).Watch(ctx, t.options(options))
	}
	return events, why(err)
}

// pageSize is how many objects are asked for at a time where the server cannot
// stream a list.
const pageSize = 250

// list calls each for every object, page by page, and gives the resource version
// that a watch goes on from.
func (c *client) list(ctx context.Context, t target, each func(runtime.Object) error) (string, error) {
	options := t.options(metav1.ListOptions{Limit: pageSize})
	for {
		page, err := c.page(ctx, t, options)
		if err != nil {
			return "", why(err)
		}
		if err := meta.EachListItem(page, each); err != nil {
			return "", err
		}
		list, err := meta.ListAccessor(page)
		if err != nil {
			return "", err
		}
		if options.Continue = list.GetContinue(); options.Continue == "" {
			return list.GetResourceVersion(), nil
		}
	}
}

func (c *client) page(ctx context.Context, t target, options metav1.ListOptions) (runtime.Object, error) {
	if t.full {
		return c.whole.Resource(t.resource).Namespace(t.namespace).List(ctx, options)
	}
	return c.metadata.Resource(t.resource).Namespace(t.namespace).List(ctx, options)
}
