// Package simulate stands in for the machines of a local control plane: nodes
// that are Ready, pods that run as soon as they have a node, volumes that exist
// as soon as they are claimed. Nothing is pulled, started or mounted.
//
// Nodes and pods are kwok's work, told by stages.yaml what to do. Volumes are
// this package's own, a provisioner like those of real storage.
package simulate

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/component-base/version"
	"k8s.io/utils/clock"
	"sigs.k8s.io/kwok/pkg/apis/internalversion"
	"sigs.k8s.io/kwok/pkg/apis/v1alpha1"
	"sigs.k8s.io/kwok/pkg/kwok/controllers"
	kwoklog "sigs.k8s.io/kwok/pkg/log"
)

//go:embed stages.yaml
var stagesYAML []byte

// podNetwork is where pods get their addresses.
const podNetwork = "10.244.0.1/16"

// nodeIP is the address that every simulated node says it has.
const nodeIP = "10.0.0.1"

// Nodes simulates nodes and the pods on them.
type Nodes struct {
	// Config reaches the API server as a user who may do everything.
	Config *rest.Config
	// Count is the number of nodes made, "node-1" and up.
	Count int
	// Log takes what kwok has to say.
	Log io.Writer
}

// Run makes the nodes and simulates them and their pods until ctx ends.
func (n Nodes) Run(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(n.Config)
	if err != nil {
		return err
	}
	for i := range n.Count {
		node := newNode(fmt.Sprintf("node-%d", i+1))
		_, err := client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create node %q: %w", node.Name, err)
		}
	}
	stages, err := parseStages(stagesYAML)
	if err != nil {
		return err
	}
	dynamicClient, err := dynamic.NewForConfig(n.Config)
	if err != nil {
		return err
	}
	id, err := controllers.Identity()
	if err != nil {
		return err
	}
	kubelets, err := controllers.NewController(controllers.Config{
		Clock:                     clock.RealClock{},
		TypedClient:               client,
		DynamicClient:             dynamicClient,
		RESTClient:                client.CoreV1().RESTClient(),
		RESTMapper:                restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery())),
		ManageAllNodes:            true,
		CIDR:                      podNetwork,
		NodeIP:                    nodeIP,
		LocalStages:               stages,
		PodPlayStageParallelism:   8,
		NodePlayStageParallelism:  4,
		PodsOnNodeSyncParallelism: 1,
		ID:                        id,
	})
	if err != nil {
		return err
	}
	ctx = kwoklog.NewContext(ctx, kwoklog.NewLogger(n.Log, kwoklog.LevelWarn))
	if err := kubelets.Start(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// newNode returns a node with room for everything that a test could ask for.
func newNode(name string) *corev1.Node {
	room := corev1.ResourceList{
		corev1.ResourceCPU:              resource.MustParse("1k"),
		corev1.ResourceMemory:           resource.MustParse("1Ti"),
		corev1.ResourceEphemeralStorage: resource.MustParse("10Ti"),
		corev1.ResourcePods:             resource.MustParse("10k"),
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: name,
			Labels: map[string]string{
				corev1.LabelHostname:           name,
				corev1.LabelOSStable:           "linux",
				corev1.LabelArchStable:         "amd64",
				"node.kubernetes.io/simulated": "true",
			},
		},
		Status: corev1.NodeStatus{
			Capacity:    room,
			Allocatable: room,
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: nodeIP},
				{Type: corev1.NodeHostName, Address: name},
			},
			NodeInfo: corev1.NodeSystemInfo{
				Architecture:            "amd64",
				OperatingSystem:         "linux",
				OSImage:                 "simulated",
				KubeletVersion:          version.Get().GitVersion,
				ContainerRuntimeVersion: "simulated://",
			},
		},
	}
}

// parseStages reads a stream of kwok stages, grouped by the kind they are for.
func parseStages(data []byte) (map[internalversion.StageResourceRef][]*internalversion.Stage, error) {
	stages := map[internalversion.StageResourceRef][]*internalversion.Stage{}
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(data), 4096)
	for {
		var stage v1alpha1.Stage
		if err := decoder.Decode(&stage); errors.Is(err, io.EOF) {
			return stages, nil
		} else if err != nil {
			return nil, fmt.Errorf("parse stages: %w", err)
		}
		internal, err := internalversion.ConvertToInternalStage(&stage)
		if err != nil {
			return nil, fmt.Errorf("stage %q: %w", stage.Name, err)
		}
		ref := internal.Spec.ResourceRef
		stages[ref] = append(stages[ref], internal)
	}
}
