// Package engine runs the stages for one owner at a time: build, plan, apply,
// prune and health, from values that a front end translated.
//
// A run is level-based and never blocks on the cluster becoming healthy: it
// does what can be done now, reports, and is woken by the observer when a
// managed object drifts or changes its health. So a newer revision cancels a
// health wait by simply being the next run, and a worker is never held by an
// app that does not start.
//
// What the engine remembers of an owner is a cache: after a restart it is
// rebuilt from the owner's inventory, the digest of its last success and the
// managedFields of its objects, without a write.
package engine
