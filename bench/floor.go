package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// floorTime stands where an operator would write the time.
const floorTime = "2026-01-01T00:00:00Z"

// floorRevision stands where an operator would write the revision; it has the
// length of a real one.
const floorRevision = "main@sha1:0123456789abcdef0123456789abcdef01234567"

// floorURL and floorDigest stand where an operator would name an artifact.
const (
	floorURL    = "http://source-controller.flux-system.svc.cluster.local./a/path/"
	floorDigest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
)

// announce gives every Kustomization a finalizer and stores its inventory, as an
// operator does before it writes the first object. The function that it returns
// waits until all Deployments have been seen to by their controller, and stores the
// outcome.
func (b *bare) announce(ctx context.Context, custom, objects []item) (outcome func() error, err error) {
	inventory := map[string][]map[string]string{}
	for _, it := range objects {
		inventory[it.name] = append(inventory[it.name], map[string]string{"id": it.namespace + "_" + it.name + "__" + it.kind, "v": "v1"})
	}
	watch, err := track(ctx, b.plane.client, deployments(), partOf)
	if err != nil {
		return nil, err
	}
	err = b.eachKustomization(ctx, custom, func(ctx context.Context, it item) error {
		if err := b.mergePatch(ctx, it.path, map[string]any{"metadata": map[string]any{"finalizers": []string{"finalizers.fluxcd.io"}}}); err != nil {
			return err
		}
		return b.mergePatch(ctx, it.path+"/status", map[string]any{"status": map[string]any{
			"conditions": []any{
				floorCondition("Ready", "Unknown", "Progressing", "Reconciliation in progress"),
				floorCondition("Reconciling", "True", "Progressing", "Applying revision "+floorRevision+" with a timeout of 5m0s"),
			},
			"inventory": map[string]any{"entries": inventory[it.name]},
		}})
	})
	if err != nil {
		watch.stop()
		return nil, err
	}
	return func() error {
		defer watch.stop()
		if _, err := watch.expect(object.seenTo, atLeast(b.fleet.apps))(ctx, allWithin); err != nil {
			return err
		}
		return b.eachKustomization(ctx, custom, func(ctx context.Context, it item) error {
			return b.mergePatch(ctx, it.path+"/status", map[string]any{"status": map[string]any{
				"observedGeneration":    1,
				"lastAppliedRevision":   floorRevision,
				"lastAttemptedRevision": floorRevision,
				"conditions": []any{
					floorCondition("Ready", "True", "ReconciliationSucceeded", "Applied revision: "+floorRevision),
					floorCondition("Healthy", "True", "Succeeded", fmt.Sprintf("Health check passed for %d objects", len(inventory[it.name]))),
				},
			}})
		})
	}, nil
}

// follow makes an operator's writes for a source: a finalizer, what has come of its first
// fetch, and an event that says so.
func (b *bare) follow(ctx context.Context, it item) error {
	if err := b.mergePatch(ctx, it.path, map[string]any{"metadata": map[string]any{"finalizers": []string{"finalizers.fluxcd.io"}}}); err != nil {
		return err
	}
	stored := "stored artifact for digest '" + floorRevision + "'"
	err := b.mergePatch(ctx, it.path+"/status", map[string]any{"status": map[string]any{
		"observedGeneration": 1,
		"url":                floorURL + "latest.tar.gz",
		"artifact": map[string]any{
			"revision": floorRevision, "digest": floorDigest, "lastUpdateTime": floorTime, "size": 1000,
			"path": "a/path", "url": floorURL + "0123456789.tar.gz",
		},
		"conditions": []any{
			floorCondition("Ready", "True", "Succeeded", stored),
			floorCondition("ArtifactInStorage", "True", "Succeeded", stored),
		},
	}})
	if err != nil {
		return err
	}
	event, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Event", "metadata": map[string]any{"generateName": it.name + ".", "namespace": it.namespace},
		"involvedObject": map[string]any{"kind": it.kind, "namespace": it.namespace, "name": it.name},
		"type":           "Normal", "reason": "NewArtifact", "message": stored, "count": 1,
		"firstTimestamp": floorTime, "lastTimestamp": floorTime, "source": map[string]any{"component": applyManager},
	})
	if err != nil {
		return err
	}
	_, err = b.plane.send(ctx, http.MethodPost, "/api/v1/namespaces/"+it.namespace+"/events", "application/json", event)
	return err
}

// eachKustomization calls do for the Kustomizations among the custom resources.
func (b *bare) eachKustomization(ctx context.Context, custom []item, do func(context.Context, item) error) error {
	return parallel(ctx, b.workers, len(custom), func(ctx context.Context, i int) error {
		if custom[i].kind != kustomizations().kind {
			return nil
		}
		return do(ctx, custom[i])
	})
}

func (b *bare) mergePatch(ctx context.Context, path string, change map[string]any) error {
	body, err := json.Marshal(change)
	if err != nil {
		return err
	}
	_, err = b.plane.send(ctx, http.MethodPatch, path+"?fieldManager="+applyManager, mergePatch, body)
	return err
}

func floorCondition(kind, status, reason, message string) map[string]any {
	return map[string]any{
		"type": kind, "status": status, "reason": reason, "message": message,
		"observedGeneration": 1, "lastTransitionTime": floorTime,
	}
}

// seenTo tells whether a Deployment without replicas is as its controller leaves it.
func (o object) seenTo() bool {
	return o.Status.ObservedGeneration == o.Metadata.Generation &&
		conditionTrue(o.Status.Conditions, "Available") && conditionTrue(o.Status.Conditions, "Progressing")
}
