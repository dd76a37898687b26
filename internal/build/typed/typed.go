// Package typed gives objects of Kubernetes' own kinds the form in which Flux
// applies them: as their Go types print them.
//
// It matters for ownership. Server-side apply records every field that was
// sent, so objects that Flux applied before keep their owned fields, and need no
// write, only if the same fields are sent again: the protocol of a port that
// does not say one, data in place of stringData, the empty strategy and
// resources of a Deployment. A field that the Go type does not know is not
// dropped, as Flux does, but left for the API server to judge: the object is
// then completed in place and otherwise kept as it is.
//
// The composition root hands a Normaliser to package build.
package typed

import (
	"crypto/x509"
	"encoding/base64"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/kubernetes/scheme"
)

// Normaliser implements build.Normaliser. It is safe for concurrent use.
type Normaliser struct {
	scheme *runtime.Scheme
}

// New makes a Normaliser that knows Kubernetes' own kinds. Its scheme is its own: to the
// one that client-go has for all, any library may add kinds, and Helm's adds definitions
// of custom resources, which Flux sends as they are written.
func New() *Normaliser {
	own := runtime.NewScheme()
	utilruntime.Must(scheme.AddToScheme(own)) // it fails in every test, or never
	return &Normaliser{scheme: own}
}

// Normalise drops the status of everything but definitions of custom resources
// and the creation time, and brings built-in kinds into their typed form. It
// has no errors: what does not fit its type is left for the API server to refuse.
func (n *Normaliser) Normalise(object map[string]any) (map[string]any, error) {
	kind := gvkOf(object)
	// Flux sends roles as they are written: the typed form would print rules: null.
	role := kind.Group == "rbac.authorization.k8s.io" && kind.Version == "v1" && (kind.Kind == "Role" || kind.Kind == "ClusterRole")
	if typed, ok := n.roundTrip(kind, object); ok && !role {
		object = typed
	} else {
		completeInPlace(kind, object)
	}
	if metadata, ok := object["metadata"].(map[string]any); ok {
		delete(metadata, "creationTimestamp")
	}
	if kind.Group == "apiextensions.k8s.io" && kind.Kind == "CustomResourceDefinition" {
		dropBadBundle(object)
	} else {
		delete(object, "status")
	}
	return object, nil
}

// dropBadBundle takes a placeholder for certificates out of a definition with a
// conversion webhook: the API server refuses it, and what injects the real ones
// owns the field.
func dropBadBundle(definition map[string]any) {
	client := at(definition, "spec", "conversion", "webhook", "clientConfig")
	bundle, ok := client["caBundle"].(string)
	if !ok || bundle == "" {
		return
	}
	pem, err := base64.StdEncoding.DecodeString(bundle)
	if err != nil || len(pem) > 0 && !x509.NewCertPool().AppendCertsFromPEM(pem) {
		delete(client, "caBundle")
	}
}

// roundTrip converts an object to its Go type and back. It is false where the
// kind is not known or the type cannot hold all that the object says.
func (n *Normaliser) roundTrip(kind schema.GroupVersionKind, object map[string]any) (map[string]any, bool) {
	typed, err := n.scheme.New(kind)
	if err != nil {
		return nil, false
	}
	const reportUnknownFields = true
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object, typed, reportUnknownFields); err != nil {
		return nil, false
	}
	completeTyped(typed)
	result, err := runtime.DefaultUnstructuredConverter.ToUnstructured(typed)
	if err != nil {
		return nil, false
	}
	return result, true
}

// completeTyped sets what server-side apply needs to be said.
func completeTyped(object runtime.Object) {
	switch o := object.(type) {
	case *corev1.Pod:
		completePod(&o.Spec)
	case *appsv1.Deployment:
		completePod(&o.Spec.Template.Spec)
	case *appsv1.StatefulSet:
		completePod(&o.Spec.Template.Spec)
	case *appsv1.DaemonSet:
		completePod(&o.Spec.Template.Spec)
	case *appsv1.ReplicaSet:
		completePod(&o.Spec.Template.Spec)
	case *batchv1.Job:
		completePod(&o.Spec.Template.Spec)
	case *batchv1.CronJob:
		completePod(&o.Spec.JobTemplate.Spec.Template.Spec)
	case *corev1.Service:
		completeService(o.Spec.Ports)
	case *corev1.Secret:
		completeSecret(o)
	}
}

// completePod names the protocol of each port: it is part of the key of the list.
func completePod(spec *corev1.PodSpec) {
	for i := range spec.Containers {
		ports := spec.Containers[i].Ports
		for j := range ports {
			if ports[j].Protocol == "" {
				ports[j].Protocol = corev1.ProtocolTCP
			}
		}
	}
}

// completeService names the protocol of each port, and its target as the API server
// would. The type cannot but print a target: as 0, which the server's answer would
// never hold, and somebody would seem to have changed it.
func completeService(ports []corev1.ServicePort) {
	for i := range ports {
		if ports[i].Protocol == "" {
			ports[i].Protocol = corev1.ProtocolTCP
		}
		if target := ports[i].TargetPort; target == intstr.FromInt32(0) || target == intstr.FromString("") {
			ports[i].TargetPort = intstr.FromInt32(ports[i].Port)
		}
	}
}

// completeSecret moves stringData to data: the server would own up to data only.
func completeSecret(secret *corev1.Secret) {
	if len(secret.StringData) == 0 {
		return
	}
	if secret.Data == nil {
		secret.Data = make(map[string][]byte, len(secret.StringData))
	}
	for k, v := range secret.StringData {
		secret.Data[k] = []byte(v)
	}
	secret.StringData = nil
}

// completeInPlace does the same for an object that its type cannot hold.
func completeInPlace(kind schema.GroupVersionKind, object map[string]any) {
	switch (schema.GroupKind{Group: kind.Group, Kind: kind.Kind}) {
	case schema.GroupKind{Kind: "Pod"}:
		completePorts(object, "spec")
	case schema.GroupKind{Group: "apps", Kind: "Deployment"}, schema.GroupKind{Group: "apps", Kind: "StatefulSet"},
		schema.GroupKind{Group: "apps", Kind: "DaemonSet"}, schema.GroupKind{Group: "apps", Kind: "ReplicaSet"},
		schema.GroupKind{Group: "batch", Kind: "Job"}:
		completePorts(object, "spec", "template", "spec")
	case schema.GroupKind{Group: "batch", Kind: "CronJob"}:
		completePorts(object, "spec", "jobTemplate", "spec", "template", "spec")
	case schema.GroupKind{Kind: "Service"}:
		completeProtocols(at(object, "spec"))
	case schema.GroupKind{Kind: "Secret"}:
		completeSecretData(object)
	}
}

func completePorts(object map[string]any, path ...string) {
	containers, _ := at(object, path...)["containers"].([]any)
	for _, container := range containers {
		if c, ok := container.(map[string]any); ok {
			completeProtocols(c)
		}
	}
}

func completeProtocols(holder map[string]any) {
	ports, _ := holder["ports"].([]any)
	for _, port := range ports {
		if p, ok := port.(map[string]any); ok && (p["protocol"] == nil || p["protocol"] == "") {
			p["protocol"] = string(corev1.ProtocolTCP)
		}
	}
}

func completeSecretData(object map[string]any) {
	values, _ := object["stringData"].(map[string]any)
	for _, v := range values {
		if _, ok := v.(string); !ok {
			return // The API server says what is wrong with it.
		}
	}
	if len(values) == 0 {
		return
	}
	data, _ := object["data"].(map[string]any)
	if data == nil {
		data = make(map[string]any, len(values))
	}
	for k, v := range values {
		data[k] = base64.StdEncoding.EncodeToString([]byte(v.(string)))
	}
	object["data"] = data
	delete(object, "stringData")
}

// at is the mapping at a path; nil, which reads as empty, where there is none.
func at(object map[string]any, path ...string) map[string]any {
	for _, field := range path {
		object, _ = object[field].(map[string]any)
	}
	return object
}

func gvkOf(object map[string]any) schema.GroupVersionKind {
	apiVersion, _ := object["apiVersion"].(string)
	kind, _ := object["kind"].(string)
	return schema.FromAPIVersionAndKind(apiVersion, kind)
}
