package sops

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/getsops/sops/v3"
	"github.com/getsops/sops/v3/stores"
	"gopkg.in/ini.v1"
)

// iniOptions let sections have the same name, as in SOPS.
var iniOptions = ini.LoadOptions{AllowNonUniqueSections: true}

// maxINI is the length of an INI document: its reader takes quadratic time.
const maxINI = 128 << 10

// readINI reads a document of sections. The comment of a section stands before its
// keys, that of a key behind it.
func readINI(content []byte) (sops.TreeBranches, error) {
	if len(content) > maxINI {
		return nil, fmt.Errorf("it has %d bytes, and an encrypted INI document may have %d", len(content), maxINI)
	}
	file, err := ini.LoadSources(iniOptions, content)
	if err != nil {
		return nil, errUnreadable
	}
	var document sops.TreeBranch
	for _, section := range file.Sections() {
		entries := iniComment(nil, section.Comment)
		for _, key := range section.Keys() {
			entries = append(entries, sops.TreeItem{Key: key.Name(), Value: key.Value()})
			entries = iniComment(entries, key.Comment)
		}
		document = append(document, sops.TreeItem{Key: section.Name(), Value: entries})
	}
	return sops.TreeBranches{document}, nil
}

// iniComment adds a comment, without the sign that it begins with.
func iniComment(entries sops.TreeBranch, text string) sops.TreeBranch {
	if text == "" {
		return entries
	}
	for _, sign := range []string{";", "#"} {
		if strings.HasPrefix(text, sign) {
			text = strings.TrimLeft(text, sign+" ")
			break
		}
	}
	return append(entries, sops.TreeItem{Key: sops.Comment{Value: text}})
}

// printINI prints documents as SOPS does.
func printINI(documents sops.TreeBranches) ([]byte, error) {
	file := ini.Empty(iniOptions)
	file.DeleteSection(ini.DefaultSection)
	for _, document := range documents {
		for _, item := range document {
			if _, ok := item.Key.(sops.Comment); ok {
				continue
			}
			entries, ok := item.Value.(sops.TreeBranch)
			if !ok {
				return nil, errUnprintable
			}
			if err := addSection(file, stores.ValToString(item.Key), entries); err != nil {
				return nil, errUnprintable
			}
		}
	}
	var out bytes.Buffer
	_, err := file.WriteTo(&out)
	return out.Bytes(), err
}

// addSection adds a section with its keys and comments.
func addSection(file *ini.File, name string, entries sops.TreeBranch) error {
	section, err := file.NewSection(name)
	if err != nil {
		return err
	}
	var last *ini.Key
	for i, entry := range entries {
		comment, ok := entry.Key.(sops.Comment)
		switch {
		case ok && i == 0:
			section.Comment = comment.Value
		case ok && last != nil:
			last.Comment = comment.Value
		case !ok:
			if last, err = section.NewKey(stores.ValToString(entry.Key), stores.ValToString(entry.Value)); err != nil {
				return err
			}
		}
	}
	return nil
}
