package kustomize

// Limits bound what a build may read. A zero field takes its default.
type Limits struct {
	// FileBytes is the length of one file. Default 10 MiB.
	FileBytes int
	// YAMLBytes is the length of one file that is parsed as YAML: larger than
	// the bundles of definitions that projects publish. Default 6 MiB.
	YAMLBytes int
	// TotalNodes is the number of YAML nodes written in all files of a build.
	// Default 1,000,000.
	TotalNodes int
	// RereadBytes is the length of what is read again, as a base is that is
	// included several times. Default 256 MiB.
	RereadBytes int
	// Documents is the number of YAML documents read, each as often as it is
	// read. Default 50,000.
	Documents int
	// RereadDocuments is the number of YAML documents read again: kustomize's
	// time grows with the square of them. Default 3,000.
	RereadDocuments int
	// Copies is the number of copy and move operations of all JSON patches of a
	// build: each can double an object. Default 16.
	Copies int
	// AddedBytes is what vars and replacements may add to a build, as estimated.
	// Default 64 MiB.
	AddedBytes int
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
	set(&l.YAMLBytes, 6<<20)
	set(&l.TotalNodes, 1_000_000)
	set(&l.RereadBytes, 256<<20)
	set(&l.Documents, 50_000)
	set(&l.RereadDocuments, 3_000)
	set(&l.Copies, 16)
	set(&l.AddedBytes, 64<<20)
	set(&l.TotalBytes, 64<<20)
	set(&l.Files, 20_000)
	set(&l.Depth, 200)
	set(&l.Nodes, 100_000)
	set(&l.Kustomizations, 2_000)
	return l
}
