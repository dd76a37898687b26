// Package apply carries a plan out: it checks the whole set without writing,
// has the API server validate what changed, writes stage by stage with
// server-side apply, and deletes what the plan deletes.
//
// What holds: nothing of a stage is written while one of its objects is refused;
// the write-ahead callback has returned before the first write; every deletion
// carries the uid that was planned; an error about an object names it and where
// it is declared, and shows no value of a sensitive one. The engine calls it; it
// decides nothing that a plan could decide.
package apply
