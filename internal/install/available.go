package install

import (
	"context"
	"errors"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// podSelector selects the operator's pods in its namespace.
const podSelector = componentLabel + "=" + ownName

// available waits until the operator's Deployment is, and says what it waits for.
func (i *Installer) available(ctx context.Context, namespace string) error {
	said := ""
	err := until(ctx, func() (bool, error) {
		state, done, err := i.look(ctx, namespace)
		if err != nil || done {
			return done, err
		}
		if state != said {
			said = state
			i.say("Deployment/%s/%s: %s", namespace, ownName, state)
		}
		return false, nil
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("the time is up and Deployment/%s/%s is not available: %s; its log: kubectl -n %[1]s logs deployment/%[2]s", namespace, ownName, said)
	case ctx.Err() != nil:
		return ctx.Err()
	default:
		return fmt.Errorf("look at Deployment/%s/%s: %w", namespace, ownName, err)
	}
}

// look says how the Deployment is, and whether all of it is new and available.
func (i *Installer) look(ctx context.Context, namespace string) (state string, done bool, err error) {
	live, err := i.client.Resource(deployments).Namespace(namespace).Get(ctx, ownName, metav1.GetOptions{})
	if err != nil {
		return "", false, err
	}
	var d appsv1.Deployment
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(live.Object, &d); err != nil {
		return "", false, err
	}
	wanted := int32(1)
	if d.Spec.Replicas != nil {
		wanted = *d.Spec.Replicas
	}
	if d.Status.ObservedGeneration < d.Generation {
		return "its change has not been noticed yet", false, nil
	}
	if d.Status.UpdatedReplicas == wanted && d.Status.AvailableReplicas == wanted && d.Status.Replicas == wanted {
		return "", true, nil
	}
	state = fmt.Sprintf("%d of %d pods available", d.Status.AvailableReplicas, wanted)
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
			return state + ": " + c.Reason + ": " + c.Message, false, nil
		}
	}
	pods, err := i.client.Resource(podResource).Namespace(namespace).List(ctx, metav1.ListOptions{LabelSelector: podSelector})
	if apierrors.IsForbidden(err) {
		return state, false, nil
	}
	if err != nil {
		return "", false, err
	}
	for n := range pods.Items {
		if why := notReady(&pods.Items[n]); why != "" {
			return state + ": " + why, false, nil
		}
	}
	return state, false, nil
}

// notReady says why a pod is not ready; "" where it is, or where that is only a
// matter of seconds.
func notReady(object *unstructured.Unstructured) string {
	var pod corev1.Pod
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &pod); err != nil {
		return ""
	}
	if pod.DeletionTimestamp != nil {
		return "the pod of before is still ending"
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return c.Reason + ": " + c.Message
		}
	}
	for _, s := range pod.Status.ContainerStatuses {
		if last := s.LastTerminationState.Terminated; last != nil && !s.Ready {
			return fmt.Sprintf("the container ended with exit code %d and was started again %d times%s", last.ExitCode, s.RestartCount, withMessage(last.Message))
		}
		if w := s.State.Waiting; w != nil && w.Reason != "ContainerCreating" && w.Reason != "PodInitializing" {
			return w.Reason + withMessage(w.Message)
		}
		if t := s.State.Terminated; t != nil {
			return fmt.Sprintf("the container ended with exit code %d%s", t.ExitCode, withMessage(t.Message))
		}
		if s.State.Running != nil && !s.Ready {
			return "the container runs and is not ready yet"
		}
	}
	return ""
}

func withMessage(message string) string {
	if message = strings.TrimSpace(message); message == "" {
		return ""
	}
	return ": " + message
}
