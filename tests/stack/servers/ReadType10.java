import java.io.File;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import org.jnbis.api.Jnbis;
import org.jnbis.api.model.Nist;
import org.jnbis.api.model.record.FacialAndSmtImage;
import org.jnbis.api.model.record.TransactionInformation;
import org.jnbis.api.model.record.UserDefinedDescriptiveText;

/** What jnbis reads of each file that is named: a line of JSON a file. */
public class ReadType10 {
    public static void main(String[] paths) throws Exception {
        for (String path : paths) {
            Nist nist = Jnbis.nist().decode(new File(path));
            TransactionInformation head = nist.getTransactionInfo();
            List<String> texts = new ArrayList<>();
            for (UserDefinedDescriptiveText text : nist.getUserDefinedTexts()) {
                List<String> fields = new ArrayList<>();
                for (Map.Entry<Integer, String> field : text.getUserDefinedFields().entrySet()) {
                    fields.add(quoted(field.getKey().toString()) + ":" + quoted(field.getValue()));
                }
                texts.add("{" + String.join(",", fields) + "}");
            }
            List<String> faces = new ArrayList<>();
            for (FacialAndSmtImage face : nist.getFacialAndSmtImages()) {
                faces.add(object(
                    "idc", face.getImageDesignationCharacter(),
                    "type", face.getImageType(),
                    "agency", face.getSourceAgency(),
                    "date", face.getPhotoDate(),
                    "width", face.getHorizontalLineLength(),
                    "height", face.getVerticalLineLength(),
                    "compression", face.getCompressionAlgorithm(),
                    "colours", face.getColorSpace(),
                    "pose", face.getSubjectPose(),
                    "image", Base64.getEncoder().encodeToString(face.getImageData())));
            }
            String transaction = object(
                "version", head.getVersion(),
                "type", head.getTypeOfTransaction(),
                "date", head.getDate(),
                "to", head.getDestinationAgencyId(),
                "from", head.getOriginatingAgencyId(),
                "number", head.getControlNumber());
            System.out.println("{\"transaction\":" + transaction
                + ",\"texts\":[" + String.join(",", texts)
                + "],\"faces\":[" + String.join(",", faces) + "]}");
        }
    }

    private static String object(String... pairs) {
        List<String> members = new ArrayList<>();
        for (int place = 0; place < pairs.length; place += 2) {
            members.add(quoted(pairs[place]) + ":" + quoted(pairs[place + 1]));
        }
        return "{" + String.join(",", members) + "}";
    }

    /** In ASCII, whatever the locale of the machine is. */
    private static String quoted(String text) {
        if (text == null) {
            return "null";
        }
        StringBuilder quoted = new StringBuilder("\"");
        for (char each : text.toCharArray()) {
            boolean isPlain = each >= ' ' && each < 127 && each != '"' && each != '\\';
            quoted.append(isPlain ? String.valueOf(each) : String.format("\\u%04x", (int) each));
        }
        return quoted.append('"').toString();
    }
}
