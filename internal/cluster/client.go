package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
	"k8s.io/utils/clock"

	"github.com/plumb-gitops/plumb/internal/gitops"
)

// maxRetries bounds how often one request is sent again when the API server
// asks for it with Retry-After; after that its answer is the caller's.
const maxRetries = 5

// Options say how a Client presents and limits itself.
type Options struct {
	// Version is the program's version and Part the part of it that uses the
	// client; together they are the user agent "plumb/Version (Part)".
	Version string
	Part    string
	// QPS and Burst limit the requests of this client to a server that has no
	// priority and fairness, in requests per second and requests. A QPS of 0 or
	// less is no limit.
	QPS   float32
	Burst int
	// Remote names a cluster that may be away at any time, by its address; empty for
	// the one that the operator cannot do without. A request to it waits for its
	// answer for a minute at most, and while it cannot be reached its requests fail
	// at once with an UnreachableError.
	Remote string
	// Clock is the real one where it is nil.
	Clock clock.PassiveClock
}

// Connection is the way to one cluster with the rights of whoever configured it: in
// the operator's own cluster, the operator's. Work on objects is done with a Client
// that it makes, and with the rights of an identity where the owner of the objects
// has one. It is safe for use by many goroutines.
type Connection struct {
	config *rest.Config
	own    *Client
}

// Client works on the objects of one cluster with one identity. It is safe for use
// by many goroutines.
type Client struct {
	rest  *rest.RESTClient
	kinds *mapper
}

// Connect makes a Connection. It sends nothing: a server that cannot be reached
// shows at the first request.
func Connect(cfg *rest.Config, opts Options) (*Connection, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.UserAgent = userAgent(opts)
	// The limit is our own, so that it can be lifted by what the server says.
	cfg.QPS, cfg.Burst, cfg.RateLimiter = -1, 0, nil
	cfg.WarningHandler = rest.NoWarnings{}
	cfg.WarningHandlerWithContext = nil
	// One object an answer: packing it costs more than it saves.
	cfg.DisableCompression = true
	cfg.ContentConfig = rest.ContentConfig{
		ContentType:          runtime.ContentTypeJSON,
		AcceptContentTypes:   runtime.ContentTypeJSON,
		GroupVersion:         &schema.GroupVersion{},
		NegotiatedSerializer: statusCodecs(),
	}
	if opts.QPS > 0 {
		limit := newLimit(opts.QPS, opts.Burst)
		cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { return &limited{next: next, limit: limit} })
	}
	clk := opts.Clock
	if clk == nil {
		clk = clock.RealClock{}
	}
	if opts.Remote != "" {
		// Below what gets tokens: where those cannot be had, the cluster is not to blame.
		cfg.WrapTransport = transport.Wrappers((&breaker{name: opts.Remote, clock: clk}).wrap, cfg.WrapTransport)
	}
	restClient, err := restClientFor(cfg)
	if err != nil {
		return nil, err
	}
	kinds := newMapper(&discoverer{client: discovery.NewDiscoveryClient(restClient)}, clk)
	return &Connection{config: cfg, own: &Client{rest: restClient, kinds: kinds}}, nil
}

func restClientFor(cfg *rest.Config) (*rest.RESTClient, error) {
	httpClient, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("set up transport to %q: %w", cfg.Host, err)
	}
	client, err := rest.UnversionedRESTClientForConfigAndClient(cfg, httpClient)
	if err != nil {
		return nil, fmt.Errorf("set up client of %q: %w", cfg.Host, err)
	}
	return client, nil
}

// Own is the Client that works with the connection's own rights.
func (c *Connection) Own() *Client { return c.own }

// As makes a Client every request of which is made in the name of a user, such as
// system:serviceaccount:apps:deployer, and judged by that user's rights. It shares
// what is known of the cluster's kinds: to ask for them anybody has the right.
// The user must not be empty: that would be the connection's own rights.
func (c *Connection) As(user string) (*Client, error) {
	if user == "" {
		return nil, errors.New("no user to act for")
	}
	cfg := rest.CopyConfig(c.config)
	cfg.Impersonate = rest.ImpersonationConfig{UserName: user}
	restClient, err := restClientFor(cfg)
	if err != nil {
		return nil, err
	}
	return &Client{rest: restClient, kinds: c.own.kinds}, nil
}

// Resource is that of the connection's own Client.
func (c *Connection) Resource(ctx context.Context, kind gitops.GroupKind, version string) (Resource, error) {
	return c.own.Resource(ctx, kind, version)
}

func userAgent(opts Options) string {
	version := opts.Version
	if version == "" {
		version = "dev"
	}
	if opts.Part == "" {
		return "plumb/" + version
	}
	return "plumb/" + version + " (" + opts.Part + ")"
}

// statusCodecs decode nothing but the Status in which the API server refuses.
func statusCodecs() runtime.NegotiatedSerializer {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	return serializer.NewCodecFactory(scheme).WithoutConversion()
}

// Get reads an object. The namespace is ignored for kinds that have none.
func (c *Client) Get(ctx context.Context, res Resource, namespace, name string) (*unstructured.Unstructured, error) {
	obj, _, err := c.send(ctx, http.MethodGet, res, namespace, name, func(r *rest.Request) {})
	return obj, err
}

// ApplyOptions belong to a server-side apply, which always takes the fields that
// it names from other managers.
type ApplyOptions struct {
	// DryRun has the server do everything but keep the result.
	DryRun bool
	// FieldManager is the manager in whose name fields are owned; it is required.
	FieldManager string
	// Metadata asks for the metadata of the answer only, which is cheaper for
	// both sides where the rest is not looked at.
	Metadata bool
}

// acceptMetadata asks for an object's metadata, and for the whole object where
// the server cannot reduce it.
const acceptMetadata = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"

// Apply sends an object by server-side apply and returns the server's answer,
// and whether the object was created by it. The object must not hold
// managedFields.
func (c *Client) Apply(ctx context.Context, res Resource, namespace, name string, object []byte, opts ApplyOptions) (*unstructured.Unstructured, bool, error) {
	obj, code, err := c.send(ctx, http.MethodPatch, res, namespace, name, func(r *rest.Request) {
		r.SetHeader("Content-Type", string(types.ApplyPatchType))
		r.Param("fieldManager", opts.FieldManager).Param("force", "true")
		if opts.DryRun {
			r.Param("dryRun", metav1.DryRunAll)
		}
		if opts.Metadata {
			r.SetHeader("Accept", acceptMetadata)
		}
		r.Body(object)
	})
	return obj, code == http.StatusCreated, err
}

// JSONPatch sends a JSON patch (RFC 6902) in the name of a field manager and
// returns the object as it is then. A failed test operation is an Invalid error.
func (c *Client) JSONPatch(ctx context.Context, res Resource, namespace, name string, patch []byte, fieldManager string) (*unstructured.Unstructured, error) {
	obj, _, err := c.send(ctx, http.MethodPatch, res, namespace, name, func(r *rest.Request) {
		r.SetHeader("Content-Type", string(types.JSONPatchType))
		r.Param("fieldManager", fieldManager)
		r.Body(patch)
	})
	return obj, err
}

// Preconditions have a deletion refused with a Conflict error where the object
// is not the one that was meant. Empty fields ask for nothing.
type Preconditions struct {
	UID             string
	ResourceVersion string
}

// Delete asks for the deletion of an object, with background propagation. It
// does not wait for the end of finalizers.
func (c *Client) Delete(ctx context.Context, res Resource, namespace, name string, pre Preconditions) error {
	background := metav1.DeletePropagationBackground
	opts := metav1.DeleteOptions{
		TypeMeta:          metav1.TypeMeta{APIVersion: "v1", Kind: "DeleteOptions"},
		PropagationPolicy: &background,
	}
	if pre != (Preconditions{}) {
		opts.Preconditions = &metav1.Preconditions{}
		if pre.UID != "" {
			uid := types.UID(pre.UID)
			opts.Preconditions.UID = &uid
		}
		if pre.ResourceVersion != "" {
			opts.Preconditions.ResourceVersion = &pre.ResourceVersion
		}
	}
	body, err := json.Marshal(opts)
	if err != nil {
		return fmt.Errorf("encode deletion: %w", err)
	}
	_, _, err = c.send(ctx, http.MethodDelete, res, namespace, name, func(r *rest.Request) {
		r.SetHeader("Content-Type", runtime.ContentTypeJSON)
		r.Body(body)
	})
	return err
}

// send makes one request for one object. An answer that is not an object, as
// some deletions have it, is returned as what it is.
func (c *Client) send(ctx context.Context, verb string, res Resource, namespace, name string, with func(*rest.Request)) (*unstructured.Unstructured, int, error) {
	path, err := objectPath(res, namespace, name)
	if err != nil {
		return nil, 0, err
	}
	req := c.rest.Verb(verb).MaxRetries(maxRetries).AbsPath(path)
	with(req)
	code := 0
	result := req.Do(ctx).StatusCode(&code)
	if err := result.Error(); err != nil {
		return nil, code, c.refused(ctx, res, err)
	}
	body, err := result.Raw()
	if err != nil {
		return nil, code, err
	}
	var content map[string]any
	if err := json.Unmarshal(body, &content); err != nil || content == nil {
		return nil, code, errors.New("the API server's answer is not a JSON object")
	}
	obj := &unstructured.Unstructured{Object: content}
	if obj.GetKind() != "Status" && (obj.GetName() != name || res.Namespaced && obj.GetNamespace() != namespace) {
		return nil, code, fmt.Errorf("the API server's answer is not %s %q", res.Kind, name)
	}
	return obj, code, nil
}

// refused gives an error its type: a path that the server does not have means
// that what is known of the kind is out of date.
func (c *Client) refused(ctx context.Context, res Resource, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if isUnknownPath(err) {
		c.kinds.forget(res.GVR.GroupVersion())
		return &NotServedError{Group: res.GVR.Group, Version: res.GVR.Version, Kind: res.Kind}
	}
	return err
}

func objectPath(res Resource, namespace, name string) (string, error) {
	if name == "" {
		return "", fmt.Errorf("%s has no name", res.Kind)
	}
	path := "/apis/" + res.GVR.Group + "/" + res.GVR.Version
	if res.GVR.Group == "" {
		path = "/api/" + res.GVR.Version
	}
	if res.Namespaced {
		if namespace == "" {
			return "", fmt.Errorf("%s %q has no namespace", res.Kind, name)
		}
		path += "/namespaces/" + url.PathEscape(namespace)
	}
	return path + "/" + res.GVR.Resource + "/" + url.PathEscape(name), nil
}

// NamespaceState is what can be said of a namespace before using it.
type NamespaceState string

const (
	NamespaceMissing     NamespaceState = "missing"
	NamespaceActive      NamespaceState = "active"
	NamespaceTerminating NamespaceState = "terminating"
)

// NamespaceState asks for the state of a namespace, with one request.
func (c *Client) NamespaceState(ctx context.Context, name string) (NamespaceState, error) {
	res := Resource{GVR: schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}, Kind: "Namespace"}
	obj, err := c.Get(ctx, res, "", name)
	if IsNotFound(err) {
		return NamespaceMissing, nil
	}
	if err != nil {
		return "", err
	}
	phase, _, _ := unstructured.NestedString(obj.Object, "status", "phase")
	if phase == "Terminating" || obj.GetDeletionTimestamp() != nil {
		return NamespaceTerminating, nil
	}
	return NamespaceActive, nil
}
