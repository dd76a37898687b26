// Package flux is the front end for Flux's custom resources: it translates a
// GitRepository or Kustomization into what the stages below understand, and
// what they report into conditions, inventory, history and events as clients
// of Flux expect them.
//
// It is the only package of the operator that knows Flux's API groups,
// annotations and condition types. A reconciler here is short: load, translate,
// run, report. Every decision about objects in a cluster is made below it.
package flux
