package simulate

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

// provisioner is the name under which classes ask for simulated volumes.
const provisioner = "localcluster.plumb.dev/simulated"

// Names of the storage classes. The standard one is the cluster's default and
// binds when a pod needs the volume, as the classes of clouds do.
const (
	standardClass  = "standard"
	immediateClass = "immediate"
)

// Volumes makes a volume for every claim of its storage classes, and removes it
// when the claim is gone. No volume holds anything.
type Volumes struct {
	client     kubernetes.Interface
	controller *controller.ProvisionController
}

// NewVolumes prepares them; config reaches the API server as a user who may do everything.
// It has to be called before anything else in the process uses client-go: the library
// writes to the scheme that all clients share.
func NewVolumes(ctx context.Context, config *rest.Config) (*Volumes, error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &Volumes{client: client, controller: controller.NewProvisionController(ctx, client, provisioner, volumes{},
		controller.LeaderElection(false))}, nil
}

// Run makes the storage classes and serves claims until ctx ends.
func (v *Volumes) Run(ctx context.Context) error {
	for _, class := range []*storagev1.StorageClass{
		newClass(standardClass, storagev1.VolumeBindingWaitForFirstConsumer, true),
		newClass(immediateClass, storagev1.VolumeBindingImmediate, false),
	} {
		_, err := v.client.StorageV1().StorageClasses().Create(ctx, class, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create storage class %q: %w", class.Name, err)
		}
	}
	v.controller.Run(ctx)
	return nil
}

func newClass(name string, binding storagev1.VolumeBindingMode, isDefault bool) *storagev1.StorageClass {
	class := &storagev1.StorageClass{
		ObjectMeta:        metav1.ObjectMeta{Name: name},
		Provisioner:       provisioner,
		VolumeBindingMode: &binding,
	}
	if isDefault {
		class.Annotations = map[string]string{"storageclass.kubernetes.io/is-default-class": "true"}
	}
	return class
}

// volumes makes volumes out of nothing.
type volumes struct{}

// Provision returns the volume that options ask for.
func (volumes) Provision(_ context.Context, options controller.ProvisionOptions) (*corev1.PersistentVolume, controller.ProvisioningState, error) {
	spec := options.PVC.Spec
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: options.PVName},
		Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: *options.StorageClass.ReclaimPolicy,
			AccessModes:                   spec.AccessModes,
			VolumeMode:                    spec.VolumeMode,
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: spec.Resources.Requests[corev1.ResourceStorage]},
			PersistentVolumeSource: corev1.PersistentVolumeSource{
				HostPath: &corev1.HostPathVolumeSource{Path: "/simulated/" + options.PVName},
			},
		},
	}, controller.ProvisioningFinished, nil
}

// Delete lets go of a volume: there is nothing behind it.
func (volumes) Delete(context.Context, *corev1.PersistentVolume) error { return nil }

// SupportsBlock says that claims of raw block volumes are served too.
func (volumes) SupportsBlock(context.Context) bool { return true }
