// Package plan decides what has to be done to bring a cluster from what is live
// to what is built. It is pure: it has no client, no clock and no memory; equal
// inputs give equal plans.
//
// What holds of every plan: each ref that is written is in WriteAhead; nothing
// that is declared is deleted; Inventory is part of WriteAhead; a ref occurs
// once. The engine calls it with what is built and what is known, and gives the
// plan to the apply stage.
package plan
