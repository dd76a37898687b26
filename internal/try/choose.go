package try

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// syncFile is what `flux bootstrap` leaves in the folder of a cluster.
const syncFile = "flux-system/gotk-sync.yaml"

// errPath is an error about the folder that is to be applied: the person has to
// name another one.
var errPath = errors.New("no such folder")

// choosePath gives the folder to apply and says why it is that one. Asked is what
// --path names, inside the sub-folder that the person was in; both may be empty.
// Files are all of the repository.
func choosePath(asked, inside string, files []string) (chosen, why string, err error) {
	switch {
	case asked != "":
		chosen, why = path.Clean("/" + strings.TrimPrefix(asked, "./"))[1:], "as --path says"
		if strings.HasPrefix(path.Clean(asked), "..") {
			return "", "", fmt.Errorf("%w: --path %q leaves the repository", errPath, asked)
		}
	case inside != "":
		chosen, why = inside, "the folder that was named; --path chooses another one"
	default:
		return choosePathByFiles(files)
	}
	if chosen != "" && !slices.ContainsFunc(files, func(f string) bool { return strings.HasPrefix(f, chosen+"/") }) {
		return "", "", fmt.Errorf("%w in the repository: %q%s", errPath, chosen, suggestion(files))
	}
	return chosen, why, nil
}

func choosePathByFiles(files []string) (chosen, why string, err error) {
	clusters := clustersOf(files)
	switch len(clusters) {
	case 0:
		return "", "the repository's root, since it has no " + syncFile + "; --path chooses a folder", nil
	case 1:
		return clusters[0], "the only folder with " + syncFile, nil
	default:
		return "", "", fmt.Errorf("%w is the obvious one: the repository has several clusters, choose one with --path: %s", errPath, strings.Join(clusters, ", "))
	}
}

// clustersOf are the folders that flux bootstrap was run for.
func clustersOf(files []string) []string {
	var clusters []string
	for _, file := range files {
		if file == syncFile {
			clusters = append(clusters, "")
		} else if folder, found := strings.CutSuffix(file, "/"+syncFile); found {
			clusters = append(clusters, folder)
		}
	}
	slices.Sort(clusters)
	return clusters
}

// suggestion names folders that might be meant.
func suggestion(files []string) string {
	folders := clustersOf(files)
	if len(folders) == 0 {
		for _, file := range files {
			if folder, _, nested := strings.Cut(file, "/"); nested && !slices.Contains(folders, folder) {
				folders = append(folders, folder)
			}
		}
	}
	if len(folders) == 0 {
		return ""
	}
	return "; there are " + strings.Join(folders[:min(len(folders), 10)], ", ")
}
