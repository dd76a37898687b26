package controlplane

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// look is the time between two looks at whether something is ready.
const look = 20 * time.Millisecond

// awaitHealthy returns when the API server is healthy, or ctx ends.
func awaitHealthy(ctx context.Context, cfg *rest.Config) error {
	return awaitPath(ctx, cfg, "/healthz")
}

// awaitReady returns when the API server answers /readyz, a node is ready to
// take pods, and pods can be created in the default namespace; or ctx ends.
func awaitReady(ctx context.Context, cfg *rest.Config) error {
	if err := awaitPath(ctx, cfg, "/readyz"); err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return err
	}
	return wait.PollUntilContextCancel(ctx, look, true, func(ctx context.Context) (bool, error) {
		nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		if !anySchedulable(nodes.Items) {
			return false, nil
		}
		_, err = client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		return err == nil, err
	})
}

// anySchedulable reports whether a pod without tolerations could be put on one
// of nodes.
func anySchedulable(nodes []corev1.Node) bool {
	for _, node := range nodes {
		if len(node.Spec.Taints) > 0 {
			continue
		}
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
				return true
			}
		}
	}
	return false
}

// awaitPath returns when the API server answers 200 to path, or ctx ends.
func awaitPath(ctx context.Context, cfg *rest.Config, path string) error {
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return err
	}
	return wait.PollUntilContextCancel(ctx, look, true, func(ctx context.Context) (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		return client.RESTClient().Get().AbsPath(path).Do(ctx).Error() == nil, nil
	})
}
