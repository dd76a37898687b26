package kustomize

// Limits bound what a build may read. A zero field takes its default.
type Limits struct {
	// FileBytes is the length of one file. Default 10 MiB.
	FileBytes int
	// TotalBytes is the length of all files read. Default 64 MiB.
	TotalBytes int
	// Files is the number of files and directories read. Default 20,000.
	Files int
	// Depth is how deeply YAML collections may be nested. Default 200.
	Depth int
	// Nodes is the number of YAML nodes of one file once its aliases are
	// expanded, where that is more than ten times what is written. Default 100,000.
	Nodes int
	// Kustomizations is the number of times that a kustomization file is read,
	// which bounds bases that include each other many times over. Default 2,000.
	Kustomizations int
}

func (l Limits) withDefaults() Limits {
	set := func(field *int, value int) {
		if *field == 0 {
			*field = value
		}
	}
	set(&l.FileBytes, 10<<20)
	set(&l.TotalBytes, 64<<20)
	set(&l.Files, 20_000)
	set(&l.Depth, 200)
	set(&l.Nodes, 100_000)
	set(&l.Kustomizations, 2_000)
	return l
}
