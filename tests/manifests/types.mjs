// Checks documents against npm's packages for their kinds. Run by schemas.py in the folder that has the packages:
//
//     node --input-type=module - DOCUMENTS.json < types.mjs
//
// DOCUMENTS.json is a list of { module, document }. Prints a list of lists of messages, one for each document: the
// packages' validators know ranges, patterns and what is required; their types know which keys there are.

import { readFileSync } from "node:fs";
import path from "node:path";
import ts from "typescript";

const documents = JSON.parse(readFileSync(process.argv[2], "utf8"));
const messages = documents.map(() => []);

for (const [index, { module, document }] of documents.entries()) {
  try {
    const Model = (await import(module))[document.kind];
    new Model(document).validate();
  } catch (error) {
    messages[index].push(error.message);
  }
}

// One line for each document, so that a line's number tells whose error it is.
const name = path.join(process.cwd(), "documents.ts");
const source = documents
  .map(({ module, document }) => {
    const type = `import(${JSON.stringify(module)}).I${document.kind}`;
    return `void (${JSON.stringify(document)} satisfies ${type});`;
  })
  .join("\n");

const options = {
  noEmit: true,
  strict: true,
  skipLibCheck: true,
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
  types: [],
};
const host = ts.createCompilerHost(options);
const onDisk = host.getSourceFile.bind(host);
host.getSourceFile = (file, ...rest) =>
  file === name ? ts.createSourceFile(file, source, ts.ScriptTarget.Latest) : onDisk(file, ...rest);

const program = ts.createProgram([name], options, host);
for (const diagnostic of ts.getPreEmitDiagnostics(program)) {
  const message = ts.flattenDiagnosticMessageText(diagnostic.messageText, "\n");
  if (diagnostic.file?.fileName !== name) {
    throw new Error(`${diagnostic.file?.fileName}: ${message}`);
  }
  messages[diagnostic.file.getLineAndCharacterOfPosition(diagnostic.start).line].push(message);
}

console.log(JSON.stringify(messages));
